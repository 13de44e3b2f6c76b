"""What the door offers, a file for each command."""
