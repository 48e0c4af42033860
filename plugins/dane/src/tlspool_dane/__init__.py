"""DANE: certificates that DNSSEC vouches for (RFC 6698, RFC 7671, RFC 8162)."""
