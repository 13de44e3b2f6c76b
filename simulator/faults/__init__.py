"""Injected faults of the exchange and of the network to its clients."""
