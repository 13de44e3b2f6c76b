"""Looking at a running system from Redis alone: facts, rates, words, pictures.

Reads and never writes. It knows the keys and entries of the contract, not the bridge that writes
them: a bridge, a consumer and a viewer may each be of another day.
"""
