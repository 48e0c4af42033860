"""Socket protocol V2 between applications and the pool, without any I/O.

`messages` holds one frozen dataclass per command, `codec` turns them into 388-byte packets and back, `framing` puts packets and
descriptors together, `connection` keeps the books of requests and callbacks for either side.  The bytes are described in
docs/reference/socket-protocol.md.
"""
