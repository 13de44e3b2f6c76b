"""What can become of a REST body that the core is given (pure)."""

from enum import StrEnum

from bridge.protocol.envelope import Refusal


class Join(StrEnum):
    """What became of a body that says how a stream stands: a book, or the account."""

    PLACED = "placed"  # the book is exact at its position; an account body is always taken
    TOO_OLD = "too old"  # the deltas received begin after it: ask again
    AHEAD = "ahead"  # it is ahead of the newest delta: placed when that one arrives
    RESTS = "rests"  # the book is exact, though no delta has confirmed it: nothing changes


class Reach(StrEnum):
    """What became of a page of a trade stream's history."""

    DONE = "done"  # nothing is asked for any more
    STALE = "stale"  # it does not yet show what was received: ask again
    DEEPER = "deeper"  # what is missing is further back: ask for an older page


# What `apply` says of a record: the stream that a frame belongs to, or the error that it reports;
# what became of a REST body; None where there is nothing to say.
Applied = str | Refusal | Join | Reach | None
