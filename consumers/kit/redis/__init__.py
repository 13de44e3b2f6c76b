"""What the kit keeps in Redis: key names, the registry of streams, Lua scripts."""
