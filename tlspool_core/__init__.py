"""The TLS Pool: runs TLS for applications, settles who both parties are, and keeps keys behind key stores."""
