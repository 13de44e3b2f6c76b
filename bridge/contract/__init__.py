"""What we promise consumers (pure): stream names, events, entries, identity."""
