"""A Backpack Exchange on your desk: its WebSocket and REST protocol, a made or recorded market."""
