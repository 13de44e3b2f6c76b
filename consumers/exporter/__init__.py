"""Metrics read from Redis alone: groups, workers, bridges, memory. One process for all."""
