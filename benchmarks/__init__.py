"""Measures the bridge beside other ways of doing the same work: `make bench`."""
