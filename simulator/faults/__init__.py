"""Faults on command: what can go wrong at the exchange and on the way to its clients."""
