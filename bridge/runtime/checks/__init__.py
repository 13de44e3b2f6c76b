"""Looking before running: findings about keys, markets, Redis and memory, each with advice."""
