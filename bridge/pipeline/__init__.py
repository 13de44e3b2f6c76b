"""From a frame to entries in their place (pure): translate, and one line for each stream."""
