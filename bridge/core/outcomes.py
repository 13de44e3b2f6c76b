"""The possible results of applying a REST body (pure)."""

from enum import StrEnum

from bridge.protocol.envelope import Refusal


class Join(StrEnum):
    """The result of applying a snapshot: a book, or a body of the account."""

    PLACED = "placed"  # the book is exact at its position; an account body is always placed
    TOO_OLD = "too old"  # the received deltas begin after it: fetch again
    AHEAD = "ahead"  # it is ahead of the newest delta: placed when its delta arrives
    RESTS = "rests"  # the book is at rest: exact, though no delta has confirmed it


class Reach(StrEnum):
    """The result of applying a page of a trade stream's history."""

    DONE = "done"  # no further page is needed
    STALE = "stale"  # it does not yet have the trades received: fetch again
    DEEPER = "deeper"  # the missing trades are further back: fetch an older page


# What `apply` returns: the stream of a frame, or the error that it reports; the result of a REST
# body; None for other records.
Applied = str | Refusal | Join | Reach | None
