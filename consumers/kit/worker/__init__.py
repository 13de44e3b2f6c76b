"""A worker as a process: what it runs, and what it knows of Redis and its group."""
