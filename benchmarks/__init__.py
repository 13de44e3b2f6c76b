"""Measures the bridge against other ways of doing the same work: `make bench`."""
