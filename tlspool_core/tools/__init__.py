"""Programs around the pool for applications that do not know of it; the commands in `cli` give them their arguments."""
