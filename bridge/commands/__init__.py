"""The commands of `python -m bridge`, one module each."""
