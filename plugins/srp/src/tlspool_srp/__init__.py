"""Secure Remote Passwords in TLS (RFC 5054) for the TLS Pool."""
