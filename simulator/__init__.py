"""A local Backpack Exchange: its WebSocket and REST protocol, a generated or recorded market."""

__version__ = "0.1.0"  # of the whole project; repeated, since the simulator imports nothing of it
