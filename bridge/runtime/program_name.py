"""Help shows the command as it was called: `backpack-bridge`, or `python -m bridge`."""

from typing import Any


def name_examples(command: Any, written: str, called: str) -> None:
    """Put the name that was called where the help of `command`, and of all below, has another."""
    if command.help:
        command.help = command.help.replace(written, called)
    for each in getattr(command, "commands", {}).values():
        name_examples(each, written, called)
