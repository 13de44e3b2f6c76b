"""Being a process: configuration, keys, logs, status, the embedded server."""
