"""Kerberos in TLS for the TLS Pool."""
