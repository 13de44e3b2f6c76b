"""Checks before a start: findings about keys, markets, Redis and memory, each with advice."""
