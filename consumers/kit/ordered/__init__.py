"""Ordered mode: each stream is assigned to one worker, in order; commits are fenced."""
