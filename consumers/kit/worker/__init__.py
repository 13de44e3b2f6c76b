"""A worker process: its parts, health pages, heartbeats, and loading of its consumer."""
