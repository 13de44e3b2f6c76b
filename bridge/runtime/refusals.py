"""Classifies error replies of Redis: about the server, the user, or one key (pure)."""

import re
from collections.abc import Iterable
from enum import Enum

from redis.exceptions import ResponseError

from bridge.errors import Transient


class Refused(Transient):
    """Redis takes no writes now; a retry may succeed."""


class Refusal(Enum):
    """The scope of an error reply."""

    UNAVAILABLE = "Redis as a whole cannot take writes now"
    NO_SCRIPT = "it does not know the script (any more)"
    NOT_ALLOWED = "the user lacks a command"
    THIS_KEY = "this key alone"


# Codes of error replies, as Redis 6.2 to 8 and Valkey write them. A script repeats its command's
# error after text of its own.
_UNAVAILABLE = re.compile(
    r"\b(?:LOADING|OOM|READONLY|MISCONF|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOAUTH|WRONGPASS"
    r"|NOREPLICAS|UNKILLABLE|MOVED|ASK)\b"
    # Of all clients at once, and of proxies and hosted servers:
    r"|max number of clients|upstream failure|no upstream host"
    r"|max (?:daily|commands|requests)[\w ]{0,30} exceeded"
)
# Codes of replies that refer to another server, now or at all, at the start of the error or of the
# command's error within a script's: the server has become a replica, or the slot moves or has
# moved. Redis then ends a blocking read with "UNBLOCKED force unblock"; where the key itself ends
# the read, the text after UNBLOCKED differs.
_ELSEWHERE = re.compile(
    r"(?:^|-)(?:READONLY|MOVED|ASK|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|LOADING)\b"
    r"|^UNBLOCKED force unblock"
)
# A command that the user may not run, or that was renamed: directly, or in a script.
_NOT_ALLOWED = re.compile(
    r"permissions to run|can't run this command|unknown command|unknown subcommand"
    r"|unknown redis command|unknown valkey command"
    r"|unsupported command|command is not available|command '[^']{1,40}' not support",
    re.IGNORECASE,
)


def meaning(error: object) -> Refusal:
    """The scope of an error reply, or of its text."""
    text = spelt(error)
    if "NOSCRIPT" in text:
        return Refusal.NO_SCRIPT
    if _NOT_ALLOWED.search(text):
        return Refusal.NOT_ALLOWED
    if _UNAVAILABLE.search(text) or _ELSEWHERE.search(text):
        return Refusal.UNAVAILABLE
    return Refusal.THIS_KEY


def refusal_text(error: object) -> str:
    """The reply with details that Redis leaves out: 6.2 and 7.0 do not name a command in a script
    that the user may not run, and no version names one in a script that the server lacks.
    """
    text = str(error)
    if "can't run this command" in text or "command called from script" in text:
        return f"{text} (the append script needs exists, xadd, xinfo, xrevrange, xtrim)"
    if text.startswith(("MOVED", "ASK")):
        return f"{text} (a Redis Cluster moves the slot of these keys, or has moved it)"
    return text


def raise_not_allowed(replies: Iterable[object]) -> None:
    """Raise the first reply that refuses a command to the user. A caller that handles errors one by
    one would take it for many missing streams.
    """
    for reply in replies:
        if isinstance(reply, ResponseError) and meaning(reply) is Refusal.NOT_ALLOWED:
            raise reply


def is_server_wide(error: object) -> bool:
    """Whether every stream is refused alike, so that only a later retry helps."""
    return meaning(error) in (Refusal.UNAVAILABLE, Refusal.NOT_ALLOWED)


def is_of_a_key(error: object) -> bool:
    """Whether this error reply concerns one key only, so that other keys can be processed."""
    return isinstance(error, ResponseError) and meaning(error) is Refusal.THIS_KEY


def is_elsewhere(error: object) -> bool:
    """Whether another server, or this one later, must be used; the connection is then useless."""
    return _ELSEWHERE.search(spelt(error)) is not None


def spelt(error: object) -> str:
    """The error as the server wrote it: the Redis client strips codes that it knows."""
    code = getattr(error, "status_code", None)
    return f"{code} {error}" if code else str(error)
