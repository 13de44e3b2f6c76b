"""Turns received records into entries: pure, and the same live and in replay."""
