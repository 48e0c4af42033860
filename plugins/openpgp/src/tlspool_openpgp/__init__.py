"""OpenPGP keys (RFC 6091) for the TLS Pool."""
