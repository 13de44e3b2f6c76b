"""The bridge: receives from Backpack Exchange, validates every message, publishes it."""

__version__ = "0.1.0"
