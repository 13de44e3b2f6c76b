"""Shared mode: any worker of a group takes any entry, at least once; results count once."""
