"""What ended connections covered of each stream, and the outages between them (pure).

Times are µs by the exchange's clock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bridge.contract.causes import GapCause
from bridge.core.connection_coverage import IN_FLIGHT_US, Interval, certain_us, timing_of

# Causes as journals of earlier versions spell them.
_RENAMED = {"silent": GapCause.STALE, "buffer full": GapCause.OVERFLOW}


class Outage(NamedTuple):
    """No connection received `stream` from `from_us` until `to_us`."""

    stream: str
    from_us: int
    to_us: int
    cause: GapCause


class _Ended(NamedTuple):
    """Up to when a stream was received, and why no longer."""

    until_us: int
    cause: GapCause


class Outages:
    """Up to when each stream was received, and the outages."""

    def __init__(self) -> None:
        self._ended: dict[str, _Ended] = {}  # streams that no connection receives
        # Up to when each stream was received by connections that have ended; breaks before that
        # have been returned as outages. `_last_message_us`: of the part after the last break.
        self._until_us: dict[str, int] = {}
        self._last_message_us: dict[str, int] = {}
        # Later intervals, behind a break that a connection which is still open may have received.
        self._apart: dict[str, list[Interval]] = {}
        # When each stream was first received, until an earlier bridge's watermarks arrive (None:
        # the outage before it has been returned already).
        self._first_us: dict[str, int | None] = {}

    def until_us(self, name: str) -> int | None:
        """Up to when a stream was received; breaks before that have been returned as outages."""
        return self._until_us.get(name)

    def first_us(self, name: str) -> int | None:
        """When a stream was first received; None: the time before is known, or it never was."""
        return self._first_us.get(name)

    def certain_until_us(self) -> dict[str, int]:
        """`until_us` of each stream, less what its last connection may have missed at its end."""
        return {
            name: certain_us(name, self._last_message_us.get(name), until_us)
            for name, until_us in self._until_us.items()
        }

    def received_by(self, name: str, at_us: int, cause: GapCause) -> None:
        """Note that an ended connection received a stream at `at_us`; since when is unknown, so
        nothing before counts.
        """
        if name not in self._ended:
            self._ended[name] = _Ended(at_us, cause)
            self._first_us.setdefault(name, at_us)

    def unknown(self, name: str, since_us: int, cause: GapCause) -> None:
        """Note that it is unknown whether a stream was received from then on: an outage until it
        begins.
        """
        self._ended.setdefault(name, _Ended(since_us, cause))

    def begun(self, name: str, at_us: int) -> Sequence[Outage]:
        """Note that a connection receives the stream from then on. Returns the outage before it."""
        ended = self._ended.pop(name, None)
        if ended is None:
            self._first_us.setdefault(name, at_us)
            return ()
        self._first_us.setdefault(name, None)
        self._until_us[name] = at_us
        # If the exchange's clock is ahead of ours the outage would end before it begins; it is
        # still an outage.
        from_us = ended.until_us if ended.until_us < at_us else at_us - IN_FLIGHT_US
        return [Outage(name, from_us, at_us, ended.cause)]

    def ended(
        self, name: str, received: Interval, open_since_us: Sequence[int], cause: GapCause
    ) -> Sequence[Outage]:
        """Note that a connection that received this interval of a stream has ended;
        `open_since_us`: since when each open connection receives it, sorted. Returns the outages
        that are certain now.
        """
        outages: list[Outage] = []
        first_open_us = open_since_us[0] if open_since_us else None
        apart = sorted([*self._apart.pop(name, ()), received])
        until_us = self._until_us.get(name, _least(apart[0].from_us, first_open_us))
        last_us = self._last_message_us.get(name)
        while True:
            while apart and apart[0].from_us <= until_us:
                interval = apart.pop(0)
                until_us = max(until_us, interval.to_us)
                last_us = max(last_us or 0, interval.last_message_us)
            # An open connection that began by then may have received what comes next. That shows
            # when it ends: later intervals are kept apart until then.
            if first_open_us is not None and first_open_us <= until_us:
                break
            certain_until_us = certain_us(name, last_us, until_us)
            next_us = _least(apart[0].from_us, first_open_us) if apart else first_open_us
            if next_us is None:
                self._ended.setdefault(name, _Ended(certain_until_us, cause))
                break
            outages.append(Outage(name, certain_until_us, next_us, cause))
            until_us = last_us = next_us
        self._until_us[name] = until_us
        if last_us is not None:
            self._last_message_us[name] = last_us
        if apart:
            self._apart[name] = apart
        return outages

    def resume(self, marks: Mapping[str, int], lost: Collection[str] = ()) -> Sequence[Outage]:
        """Take the watermarks of an earlier bridge, which received each stream up to its mark. They
        may arrive when streams are received already: then they show the outage before that. In
        streams that were `lost` since, they shorten no outage.
        """
        outages = []
        for name, mark_us in marks.items():
            was_received = name in self._first_us
            first_us = self._first_us.pop(name, None)
            if ended := self._ended.get(name):
                if name not in lost:
                    self._ended[name] = ended._replace(until_us=max(mark_us, ended.until_us))
            elif not was_received:
                self._ended[name] = _Ended(mark_us, GapCause.NOT_RUNNING)
            if first_us is not None and mark_us < first_us:
                outages.append(Outage(name, mark_us, first_us, GapCause.NOT_RUNNING))
        return outages

    def state(self) -> dict[str, object]:
        """The state as plain values, with the journal's keys."""
        return {
            "since": {name: [each.until_us, each.cause] for name, each in self._ended.items()},
            "until": dict(self._until_us),
            "apart": {name: [list(each) for each in kept] for name, kept in self._apart.items()},
            "said": {name: us for name, us in self._last_message_us.items() if timing_of(name)},
            "begun": {name: us or 0 for name, us in self._first_us.items()},
        }

    def restore(self, known: Mapping[str, Mapping[str, Any]], received: Iterable[str]) -> None:
        """Restore a `state`, while these streams are received; that of earlier versions has less.
        Raises ValueError.
        """
        for name, (until_us, cause) in known.get("since", {}).items():
            self._ended[name] = _Ended(until_us, _RENAMED.get(cause) or GapCause(cause))
        self._until_us.update(known.get("until", {}))
        self._last_message_us.update({name: us for name, us in known.get("said", {}).items() if us})
        self._first_us.update({name: us or None for name, us in known.get("begun", {}).items()})
        for name, intervals in known.get("apart", {}).items():
            self._apart[name] = [_interval(*each) for each in intervals]
        for name in received:
            self._ended.pop(name, None)  # the unknown time has ended


def _interval(from_us: int, to_us: int, last_message_us: int = 0) -> Interval:
    return Interval(from_us, to_us, max(from_us, last_message_us))


def _least(us: int, other_us: int | None) -> int:
    return us if other_us is None else min(us, other_us)
