"""Numbers of the exchange that begin anew, told by their time (pure).

After a relisting or a repair of the exchange's, a market's ids may go on far lower. By number alone
such a message is old for ever; but an old message never has a newer time than those behind it.
Clocks of the engine step back by milliseconds, and two connections bring messages out of order by
as much as they lag: so a little is no proof.
"""

from typing import NamedTuple

FAR = 1_000_000  # so far below, a message was not merely late
LATER_MS = 1_000  # so much newer, its lower number was not merely a step of the clock


class Numbering(NamedTuple):
    """The newest message: its number (0: none yet) and its time in ms (0: not believable)."""

    number: int
    ms: int


NONE_YET = Numbering(0, 0)


def begins_anew(number: int, ms: int, newest: Numbering) -> bool:
    """Does this message belong to another numbering than the newest one so far?"""
    if not number or number >= newest.number or not ms or not newest.ms or ms <= newest.ms:
        return False
    return newest.number - number > FAR or ms - newest.ms > LATER_MS


def has_ended(number: int, ms: int, newest: Numbering) -> bool:
    """Is this message of a numbering that was over before the newest one, which is far lower and
    later? A little lower is no proof: what is missing before a message makes it look so.
    """
    return number - newest.number > FAR and 0 < ms < newest.ms
