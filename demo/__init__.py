"""All parts on one machine: Redis, simulator, bridge and consumers, each its own process.

It starts and stops the parts as a user would by hand, with the same commands, and watches them from
Redis alone.
"""
