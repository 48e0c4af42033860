"""The demonstration: a pool with keys in a token, at work with ordinary programs, in a temporary directory."""
