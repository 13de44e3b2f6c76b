"""Everything with Redis: publishing, statuses of bridges, the registry of streams, trimming."""
