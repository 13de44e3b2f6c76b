"""Remembering what was heard: segments of plain lines, a checkpoint, hearing again."""
