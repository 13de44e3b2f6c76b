"""One file for each sample consumer."""
