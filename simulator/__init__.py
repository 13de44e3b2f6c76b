"""A Backpack Exchange on your desk: same WebSocket and REST protocol, generated or recorded market."""
