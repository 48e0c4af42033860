"""X.509 certificates as a credential type of the TLS Pool."""
