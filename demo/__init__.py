"""The whole way on one machine: Redis, simulator, bridge and consumers, each its own process.

It starts and stops what a person would start and stop by hand, through the same commands, and looks
at it as anyone could, from Redis alone.
"""
