"""The bridge: hears Backpack Exchange, validates every message, publishes to Redis Streams."""

__version__ = "0.1.0"
