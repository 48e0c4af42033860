"""CPU, memory and latency of the pool, beside haproxy and stunnel; see README.md."""
