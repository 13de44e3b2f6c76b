"""The commands of `python -m consumers`, a file for each."""
