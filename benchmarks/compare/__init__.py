"""The bridge and the kit beside what others use for the same: `make compare`."""
