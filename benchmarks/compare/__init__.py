"""The bridge and the kit against other tools: `make compare`."""
