"""A Backpack Exchange on your desk: its WebSocket and REST protocol, a made or recorded market."""

__version__ = "0.1.0"  # that of the whole; told here, since the simulator imports nothing of it
