"""The databases localid, disclose and trust in one LMDB environment; see `backend` for how."""
