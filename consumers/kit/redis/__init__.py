"""The kit's data in Redis: key names, the registry of streams, Lua scripts."""
