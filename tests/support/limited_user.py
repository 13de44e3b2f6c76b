"""A user of Redis who may do everything but one command."""


def without(command: str) -> tuple[str, ...]:
    """The command that creates or changes the user, without this right; empty: with all rights."""
    lacks = [f"-{command}"] if command else []
    return ("ACL", "SETUSER", "limited", "reset", "on", ">hush-hush", "~*", "+@all", *lacks)


def as_limited(url: str) -> str:
    """The URL with the user's name and password."""
    return url.replace("redis://", "redis://limited:hush-hush@")
