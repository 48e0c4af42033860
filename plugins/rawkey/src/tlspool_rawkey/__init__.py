"""Raw public keys (RFC 7250) for the TLS Pool."""
