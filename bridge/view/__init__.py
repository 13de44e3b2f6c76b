"""Views of a running system from Redis alone: facts, rates, texts, screens.

Reads and never writes. It knows the keys and entries of the contract, not the bridge that writes
them: bridge, consumer and viewer may each be of another version.
"""
