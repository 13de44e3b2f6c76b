"""What an error reply of Redis means: for the server, for the user, or for one key (pure)."""

import re
from collections.abc import Iterable
from enum import Enum

from redis.exceptions import ResponseError

from bridge.errors import Transient


class Refused(Transient):
    """Redis takes no writes now; trying again may help."""


class Refusal(Enum):
    """Whom an error reply is about."""

    UNAVAILABLE = "Redis as a whole cannot take writes now"
    NO_SCRIPT = "it does not know the script (any more)"
    NOT_ALLOWED = "the user lacks a command"
    THIS_KEY = "this key alone"


# Codes of error replies, as Redis 6.2 to 8 and Valkey spell them. A script repeats the error of its
# command behind words of its own.
_UNAVAILABLE = re.compile(
    r"\b(?:LOADING|OOM|READONLY|MISCONF|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOAUTH|WRONGPASS"
    r"|NOREPLICAS|UNKILLABLE|MOVED|ASK)\b"
    # of all clients at once, and of proxies and hosted servers
    r"|max number of clients|upstream failure|no upstream host"
    r"|max (?:daily|commands|requests)[\w ]{0,30} exceeded"
)
# What an error begins with, or the command's within a script's, where this server is not, or not
# now, the one to be asked: it has become a replica, or the slot of the key moves or has moved.
# A read that waits is ended by "UNBLOCKED force unblock" then, for its key's sake in other words.
_ELSEWHERE = re.compile(
    r"(?:^|-)(?:READONLY|MOVED|ASK|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|LOADING)\b"
    r"|^UNBLOCKED force unblock"
)
# A command that the user may not run, or that was renamed away: by itself, or in the script.
_NOT_ALLOWED = re.compile(
    r"permissions to run|can't run this command|unknown command|unknown subcommand"
    r"|unknown redis command|unknown valkey command"
    r"|unsupported command|command is not available|command '[^']{1,40}' not support",
    re.IGNORECASE,
)


def meaning(error: object) -> Refusal:
    """Whom an error reply, or its text, is about."""
    text = spelt(error)
    if "NOSCRIPT" in text:
        return Refusal.NO_SCRIPT
    if _NOT_ALLOWED.search(text):
        return Refusal.NOT_ALLOWED
    if _UNAVAILABLE.search(text) or _ELSEWHERE.search(text):
        return Refusal.UNAVAILABLE
    return Refusal.THIS_KEY


def refusal_text(error: object) -> str:
    """The reply, and what it leaves out: Redis 6.2 and 7.0 do not name the command that the user
    may not run where it stands in a script, and none names there one that it does not have.
    """
    text = str(error)
    if "can't run this command" in text or "command called from script" in text:
        return f"{text} (the append script needs exists, xadd, xinfo, xrevrange, xtrim)"
    if text.startswith(("MOVED", "ASK")):
        return f"{text} (a Redis Cluster moves the slot of these keys, or has moved it)"
    return text


def raise_not_allowed(replies: Iterable[object]) -> None:
    """Raise the first of these replies that says that the user lacks a command. Where errors are
    looked at one by one, it would look like many streams that are not there.
    """
    for reply in replies:
        if isinstance(reply, ResponseError) and meaning(reply) is Refusal.NOT_ALLOWED:
            raise reply


def is_server_wide(error: object) -> bool:
    """Is every stream refused alike, so that trying again later is all that helps?"""
    return meaning(error) in (Refusal.UNAVAILABLE, Refusal.NOT_ALLOWED)


def is_of_a_key(error: object) -> bool:
    """Is it an error reply about the key at hand alone, so that all others can be gone on with?"""
    return isinstance(error, ResponseError) and meaning(error) is Refusal.THIS_KEY


def is_elsewhere(error: object) -> bool:
    """Is another server the one to be asked, or this one later: is the connection of no use?"""
    return _ELSEWHERE.search(spelt(error)) is not None


def spelt(error: object) -> str:
    """The error as the server wrote it: the Redis client takes off a code that it knows."""
    code = getattr(error, "status_code", None)
    return f"{code} {error}" if code else str(error)
