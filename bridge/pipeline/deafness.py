"""When nobody was listening (pure): from when to when each unnumbered stream was not heard.

Numbered streams need none of this, their numbers tell. A connection claims to have heard everything
up to the exchange's own newest time on it, less what may have been under way: never up to the local
clock, since frames stuck in the network when a connection breaks are lost inside that time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bridge.pipeline.items import Twins

UNSURE_US = 1_000_000  # what may have been under way when a connection broke
NOT_RUNNING = "bridge was not running"


@dataclass(slots=True)
class Ear:
    """One connection's ear: what only makes sense within one connection.

    `newest_us` is the exchange's newest time heard on it.
    """

    streams: Sequence[str] = ()
    twins: Twins = field(default_factory=Twins)
    newest_us: int = 0


class Deaf(NamedTuple):
    """Nobody listened to `stream` from `from_us` until `to_us`."""

    stream: str
    from_us: int
    to_us: int
    cause: str


class Deafness:
    """Follows the connections of one bridge by their numbers."""

    def __init__(self, unnumbered: Iterable[str]) -> None:
        self.ears: dict[int, Ear] = {}
        self._unnumbered = frozenset(unnumbered)
        self._since: dict[str, tuple[int, str]] = {}  # stream → heard up to here, and why no more
        self._heard_again_us: dict[str, int] = {}

    def opened(self, connection: int, streams: Sequence[str]) -> None:
        """A connection was made for these streams; what it hears begins anew."""
        self.ears[connection] = Ear(streams)

    def lost(self, connection: int, cause: str) -> Sequence[str]:
        """A connection is gone; returns its streams."""
        ear = self.ears.pop(connection, None)
        if ear is None:
            return ()
        for name in ear.streams:
            # a quiet connection has heard nothing since it was answered, and that is known
            known_us = (
                ear.newest_us - UNSURE_US if ear.newest_us else self._heard_again_us.get(name)
            )
            self._heard_again_us.pop(name, None)
            if name in self._unnumbered and known_us:
                self._since.setdefault(name, (known_us, cause))
        return ear.streams

    def answered(self, connection: int, at_us: int) -> Iterator[Deaf]:
        """The exchange has our subscription: until now nobody listened to its streams."""
        ear = self.ears.get(connection)
        for name in ear.streams if ear else ():
            self._heard_again_us[name] = at_us
            if name in self._since:
                from_us, cause = self._since.pop(name)
                yield Deaf(name, _before(from_us, at_us), at_us, cause)

    def resume(self, marks: Mapping[str, int]) -> Iterator[Deaf]:
        """An earlier bridge has heard each stream up to its mark (µs)."""
        for name, mark_us in marks.items():
            if name not in self._unnumbered:
                continue
            again_us = self._heard_again_us.get(name)
            if again_us is None:
                known_us, cause = self._since.get(name, (0, NOT_RUNNING))
                self._since[name] = (max(mark_us, known_us), cause)
            else:
                yield Deaf(name, _before(mark_us, again_us), again_us, NOT_RUNNING)

    def open_connections(self) -> Sequence[int]:
        """Connections that were opened and not lost."""
        return list(self.ears)

    def forget(self, keep: Iterable[int]) -> None:
        """What follows tells everything anew, but for these connections."""
        kept = set(keep)
        self.ears = {number: ear for number, ear in self.ears.items() if number in kept}
        self._since.clear()
        self._heard_again_us.clear()

    def state(self) -> dict[str, dict[str, object]]:
        """What is known of deafness, as plain values."""
        return {
            "newest_us": {str(number): ear.newest_us for number, ear in self.ears.items()},
            "since": {name: list(known) for name, known in self._since.items()},
        }

    def restore(
        self,
        connections: Mapping[str, Sequence[str]] | None = None,
        deafness: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Begin with these connections open, and with what `state` said."""
        newest_us = (deafness or {}).get("newest_us", {})
        for number, streams in (connections or {}).items():
            self.ears[int(number)] = Ear(streams, newest_us=newest_us.get(number, 0))
        for name, (since_us, cause) in (deafness or {}).get("since", {}).items():
            self._since[name] = (since_us, cause)

    def heard_up_to_us(self) -> Iterator[tuple[str, int]]:
        """Each unnumbered stream that is listened to, and up to when all of it has been heard."""
        for ear in self.ears.values():
            for name in ear.streams:
                if name in self._unnumbered and ear.newest_us:
                    yield name, ear.newest_us - UNSURE_US


def _before(from_us: int, to_us: int) -> int:
    """Where the exchange's clock is ahead of ours, an interval would end before it begins; it is
    marked all the same.
    """
    return from_us if from_us < to_us else to_us - UNSURE_US
