"""Shows the command in help as it was called: `backpack-bridge`, or `python -m bridge`."""

from typing import Any


def name_examples(command: Any, written: str, called: str) -> None:
    """Replace `written` by `called` in the help of `command` and of all its subcommands."""
    if command.help:
        command.help = command.help.replace(written, called)
    for each in getattr(command, "commands", {}).values():
        name_examples(each, written, called)
