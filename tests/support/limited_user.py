"""A user of Redis with the right to all commands but one."""


def without(command: str) -> tuple[str, ...]:
    """The command that creates or changes the user without the right to `command`, or with
    all rights.
    """
    lacks = [f"-{command}"] if command else []
    return ("ACL", "SETUSER", "limited", "reset", "on", ">hush-hush", "~*", "+@all", *lacks)


def as_limited(url: str) -> str:
    """The URL with the user's name and password."""
    return url.replace("redis://", "redis://limited:hush-hush@")
