"""The contract with consumers (pure): stream names, events, entries, identity."""
