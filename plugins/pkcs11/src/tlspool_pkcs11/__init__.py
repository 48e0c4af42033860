"""Keys in PKCS #11 tokens for the TLS Pool.

Theory of operation
-------------------
The pool never loads a token library.  For each configured module the daemon starts a small process (`worker`) which loads it,
logs in, finds keys and signs, one call after the other; a private socket pair with length-prefixed frames (`protocol`) connects
the two.

    daemon:  plugin -> store -> supervisor -> client  ==frames==>  worker -> sessions -> cryptoki -> python-pkcs11 -> the library

What TLS wants (`mechanisms`), how keys are named (`uri`), who may send a PIN and when (`pins`) is decided in the daemon; the
worker knows PKCS #11 only, and of that only what reads, signs and agrees.  This file imports nothing, so that the worker
starts quickly.
"""
