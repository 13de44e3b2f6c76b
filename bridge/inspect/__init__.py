"""What one entry, one stream or one book was, from what Redis, a journal and an archive keep."""
