"""Effects outside Redis that happen once, although an entry may be delivered again."""
