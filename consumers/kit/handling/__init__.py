"""Calls the handlers of one consumer with entries, and collects the outcome."""
