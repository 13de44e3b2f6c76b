"""What Redis alone tells a monitor: groups, workers, bridges, memory. One process for all."""
