"""Saying it again: the append script and the publisher."""
