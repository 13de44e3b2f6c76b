"""Process runtime: configuration, keys, logs, Redis clients, the embedded server."""
