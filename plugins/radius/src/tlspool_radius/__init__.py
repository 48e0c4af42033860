"""RADIUS for the TLS Pool: authentication and authorisation as site rules, and accounting."""
