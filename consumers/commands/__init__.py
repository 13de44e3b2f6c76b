"""The commands of `python -m consumers`, one file per command."""
