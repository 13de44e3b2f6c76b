"""Detects by their times that numbers of the exchange began anew: a renumbering (pure).

After a relisting or a repair at the exchange, a market's ids may continue far lower. By number
alone such a message would be old for ever; but a truly old message never has a newer time than
those after it. Clocks of the engine step back by milliseconds, and two connections deliver out of
order by as much as they lag: so a small difference is no proof.
"""

from typing import NamedTuple

FAR = 1_000_000  # a number so far below cannot be a late message
LATER_MS = 1_000  # a time so much newer cannot be a step of the clock


class Numbering(NamedTuple):
    """The newest message: its number (0: none yet) and its time in ms (0: not believable)."""

    number: int
    ms: int


NONE_YET = Numbering(0, 0)


def begins_anew(number: int, ms: int, newest: Numbering) -> bool:
    """Whether this message begins another numbering than that of the newest one."""
    if not number or number >= newest.number or not ms or not newest.ms or ms <= newest.ms:
        return False
    return newest.number - number > FAR or ms - newest.ms > LATER_MS


def has_ended(number: int, ms: int, newest: Numbering) -> bool:
    """Whether this message is of a numbering that ended before the newest one, which is far lower
    and later. A little lower is no proof: a missing message before this one has the same effect.
    """
    return number - newest.number > FAR and 0 < ms < newest.ms
