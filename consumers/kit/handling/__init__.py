"""From entries to the handlers of one consumer, and what came of them."""
