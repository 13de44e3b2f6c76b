"""How far a bridge is with its streams, for the other bridges and for the one after it (pure)."""

from collections.abc import Callable

from bridge.pipeline.deafness import Deafness
from bridge.pipeline.intake import Intake
from bridge.pipeline.numbered import NumberedLine
from bridge.pipeline.peers import BEHIND_US
from bridge.pipeline.unnumbered import UnnumberedLine


def heard_us(intake: Intake) -> dict[str, int]:
    """Streams that are listened to, and up to when (the exchange's time), for other bridges.

    Not those in which an interval waits to be marked that nobody may have listened to.
    """
    return {
        name: us
        for name, us in _merged(intake, Deafness.heard_up_to_us).items()
        if not (isinstance(line := intake.lines.get(name), UnnumberedLine) and line.is_deaf())
    }


def deaf_streams(intake: Intake) -> list[str]:
    """Streams in which it is still open whether somebody listened while this bridge did not."""
    return [
        name
        for name, line in intake.lines.items()
        if isinstance(line, UnnumberedLine) and line.is_deaf()
    ]


def settled_until_us(intake: Intake) -> dict[str, int]:
    """Unnumbered streams, and up to when all that the exchange sent is in Redis."""
    settled: dict[str, int] = {}
    for name, us in _merged(intake, Deafness.certain_up_to_us).items():
        line = intake.lines.get(name)
        if intake.is_away(name):
            continue
        if isinstance(line, UnnumberedLine) and (until_us := line.settled_until_us(us)):
            settled[name] = until_us
    return settled


def held(intake: Intake) -> dict[str, int]:
    """Numbered streams that wait, and the position that they need."""
    return {
        name: after
        for name, line in intake.lines.items()
        if isinstance(line, NumberedLine) and (after := line.held_after()) is not None
    }


def oldest_us(intake: Intake) -> int:
    """The exchange's time of the oldest numbered message that is not settled, 0 for none."""
    if any(intake.is_away(name) for name in intake.lines):
        return BEHIND_US
    waiting = [
        line.pending[0].ms * 1000 or BEHIND_US
        for line in intake.lines.values()
        if isinstance(line, NumberedLine)
        and not line.stream.window
        and line.pending
        and not line.parked
        and line.held_after() is None
    ]
    return min(waiting, default=0)


def _merged(intake: Intake, tell: Callable[[Deafness], dict[str, int]]) -> dict[str, int]:
    """Of connections that the journal has, and of those that it has not."""
    return tell(intake.deafness) | tell(intake.unjournaled)
