"""Sample workers: they know Redis and the contract, never the exchange."""
