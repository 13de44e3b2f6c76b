"""What was heard of streams by connections that are gone, and since when nobody listens (pure)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bridge.pipeline.ear import RHYTHMIC, UNSURE_US, Stretch, certain_us

NOT_RUNNING = "bridge was not running"
NOT_IN_JOURNAL = "not in the journal"


class Deaf(NamedTuple):
    """Nobody listened to `stream` from `from_us` until `to_us`."""

    stream: str
    from_us: int
    to_us: int
    cause: str


class _Since(NamedTuple):
    """A stream has been heard up to here, and why no more."""

    heard_us: int
    cause: str


class Past:
    """Of each stream: up to when it was heard, and the breaks that this leaves. Times are µs."""

    def __init__(self) -> None:
        self._since: dict[str, _Since] = {}
        # Up to here each stream was heard without a break by connections that are gone, or its
        # breaks are marked; and what they heard further on, behind a break that somebody who still
        # listens may have heard.
        self._until: dict[str, int] = {}
        self._apart: dict[str, list[Stretch]] = {}
        self._said_us: dict[str, int] = {}  # the newest message over connections that are gone
        # the first hearing (0: what lies before is marked), until an earlier bridge's marks come
        self._begun_us: dict[str, int] = {}

    def until_us(self, name: str) -> int:
        """Up to when it was heard without a break, or its breaks are marked."""
        return self._until.get(name, 0)

    def certain_up_to_us(self) -> dict[str, int]:
        """The same of each stream, less what its last connection may have missed at its end."""
        return {
            name: certain_us(name, self._said_us.get(name, 0), until_us)
            for name, until_us in self._until.items()
        }

    def begun_by(self, name: str, at_us: int, cause: str) -> None:
        """It was heard at that time, and nobody knows since when: nothing before that counts."""
        if name not in self._since:
            self._since[name] = _Since(at_us, cause)
            self._begun_us.setdefault(name, at_us)

    def listened_to(self, name: str, at_us: int) -> Iterator[Deaf]:
        """Somebody listens from now on: where nobody did, that was deafness."""
        since = self._since.pop(name, None)
        self._begun_us.setdefault(name, 0 if since else at_us)
        if since is not None:
            self._until[name] = at_us
            yield Deaf(name, _before(since.heard_us, at_us), at_us, since.cause)

    def left(
        self, name: str, heard: Stretch, begun_us: Sequence[int], cause: str
    ) -> Iterator[Deaf]:
        """One that heard so much of the stream is gone; `begun_us`: since when each of the others
        listens, in order.
        """
        apart = sorted([*self._apart.pop(name, ()), heard])
        until_us = self._until.get(name, min([apart[0].from_us, *begun_us[:1]]))
        said_us = self._said_us.get(name, 0)
        while True:
            while apart and apart[0].from_us <= until_us:
                stretch = apart.pop(0)
                until_us = max(until_us, stretch.to_us)
                said_us = max(said_us, stretch.from_us, stretch.spoken_us)
            if begun_us and begun_us[0] <= until_us:
                break  # it may have heard what comes next: that shows when it goes
            again_us = min([*begun_us[:1], *(stretch.from_us for stretch in apart[:1])], default=0)
            if not again_us:
                self._since.setdefault(name, _Since(certain_us(name, said_us, until_us), cause))
                break
            yield Deaf(name, certain_us(name, said_us, until_us), again_us, cause)
            until_us = said_us = again_us
        self._until[name], self._said_us[name] = until_us, said_us
        if apart:
            self._apart[name] = apart

    def resume(self, marks: Mapping[str, int]) -> Iterator[Deaf]:
        """An earlier bridge has heard each stream up to its mark (µs)."""
        for name, mark_us in marks.items():
            begun_us = self._begun_us.pop(name, None)
            if begun_us is None or name in self._since:
                known_us, cause = self._since.get(name, _Since(0, NOT_RUNNING))
                self._since[name] = _Since(max(mark_us, known_us), cause)
            if begun_us and mark_us < begun_us:
                yield Deaf(name, mark_us, begun_us, NOT_RUNNING)

    def state(self) -> dict[str, object]:
        """All of it, as plain values."""
        return {
            "since": {name: list(known) for name, known in self._since.items()},
            "until": self._until,
            "apart": {name: [list(each) for each in known] for name, known in self._apart.items()},
            "said": rhythmic(self._said_us),
            "begun": self._begun_us,
        }

    def restore(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        """Begin with what `state` said."""
        for name, (since_us, cause) in known.get("since", {}).items():
            self._since[name] = _Since(since_us, cause)
        self._until.update(known.get("until", {}))
        self._said_us.update(known.get("said", {}))
        self._begun_us.update(known.get("begun", {}))
        for name, stretches in known.get("apart", {}).items():
            self._apart[name] = [Stretch(*each) for each in stretches]


def rhythmic(spoken_us: Mapping[str, int]) -> dict[str, int]:
    """Those of streams that have a rhythm."""
    return {name: us for name, us in spoken_us.items() if name.startswith(RHYTHMIC)}


def _before(from_us: int, to_us: int) -> int:
    """Where the exchange's clock is ahead of ours, an interval would end before it begins; it is
    marked all the same.
    """
    return from_us if from_us < to_us else to_us - UNSURE_US
