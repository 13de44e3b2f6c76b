"""Compares Redis with the exchange's ledger to find outages without a gap: one sentence per flaw.

Uses no data of the bridge but its entries. `Judge.flaws` is the verdict; `dead_s` is the longest
time for which a stream got nothing new although the exchange had messages for it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import redis

from tests.support import truth
from tests.support.exchange_coverage import Connections, covers
from tests.support.exchange_ledger import ExchangeLedger, Line, symbol_of
from tests.support.over_marking import Marking, sent

SEQUENCED = ("trade.", "depth.")
TICKS = ("ticker.", "markPrice.")  # a late tick may rightly be taken for an outage
# in other streams the bridge drops a message older than the newest
EVENTS = ("account.", "liquidation")
PAGE = 2000
EDGE_US = 500_000
# How long a stream may stay without messages after the exchange dropped its subscription, with
# `silence_s: 9`. A ticker is probed after 3 s and counts as stale after 3 s more; a book within 27
# s and two polls of REST; a trade stream after ten times its longest silence, and stalls here last
# 4 s. Other faults at the same time add to this: no handshake, no REST for some seconds.
DEAD_LIMIT_S = {"ticker": 30.0, "markPrice": 30.0, "bookTicker": 60.0, "depth": 60.0, "trade": 90.0}
MOST_FLAWS = 5  # reported per stream

Entry = tuple[str, Mapping[str, str]]
Side = dict[str, str]


def entries(client: redis.Redis, stream: str) -> Iterator[Entry]:
    """All entries of a stream, read page by page."""
    start = "-"
    while True:
        page: Any = client.xrange(stream, start, "+", PAGE)
        yield from page
        if len(page) < PAGE:
            return
        start = f"({page[-1][0]}"


class Judge:
    """Judges one run.

    Events after `until_us` (the exchange's event time) are not required, and gaps that begin later
    are not judged.
    """

    def __init__(
        self, ledger: ExchangeLedger, client: redis.Redis, *, since_us: int, until_us: int
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._since_us = since_us
        self.until_us = until_us
        self._connections = Connections(ledger.notes)
        self.gaps: Counter[tuple[str, str]] = Counter()  # (type of stream, cause)
        self.from_history = 0
        self.snapshots = 0
        # the longest time without new messages, by type of stream
        self.dead_s: dict[str, float] = {}

    def flaws(self, streams: Sequence[str]) -> list[str]:
        """The flaws of these streams."""
        found: list[str] = []
        for stream in streams:
            is_sequenced = stream.startswith(SEQUENCED)
            judge = self._sequenced if is_sequenced else self._by_content
            found += [f"{stream}: {flaw}" for flaw in islice(judge(stream), MOST_FLAWS)]
            if stream.startswith("depth."):
                found += [f"{stream}: {flaw}" for flaw in islice(self._books(stream), MOST_FLAWS)]
        return found

    # Sequenced streams ----------------------------------------------------------------------------

    def _sequenced(self, stream: str) -> Iterator[str]:
        """Numbers that are not stored once and in order, that no gap covers, or that a gap covers
        though they are stored.
        """
        made = {_number(stream, line.data): line for line in self._ledger.frames(stream)}
        skipped = self._ledger.skipped(stream)
        live: set[int] = set()
        position: int | None = None
        for entry_id, fields in entries(self._client, stream):
            kind = fields["type"]
            if kind == "depth_snapshot":
                self.snapshots += 1
                continue
            if kind == "gap":
                yield from self._sequenced_gap(stream, fields, position, made, skipped)
                position = int(fields["to"]) if fields["to"] else position
                continue
            number = _entry_number(fields)
            first = int(fields.get("first_update_id") or number)
            if position is not None and first <= position and number <= position:
                yield f"{entry_id} is {number}, after {position}"
            missing = range(position + 1, first) if position is not None else ()
            if any(each not in skipped for each in missing) or (missing and "depth" in stream):
                yield f"{entry_id} is {first}, after {position}, and no gap says so"
            position = number
            if number not in made:
                yield f"{entry_id} is {number}, which the exchange never sent"
            elif fields.get("source") == "rest":
                self.from_history += 1
                if flaw := truth_of_history(made[number].data, fields):
                    yield flaw
            else:
                live.add(number)
                if flaw := truth.fault(stream, made[number].data, fields):
                    yield flaw
        yield from self._end_of_sequenced(made, position)
        yield from self._dead(stream, made, live)

    def _sequenced_gap(
        self,
        stream: str,
        fields: Mapping[str, str],
        position: int | None,
        made: Mapping[int, Line],
        skipped: set[int],
    ) -> Iterator[str]:
        self.gaps[truth.kind(stream), fields["cause"]] += 1
        if not fields["from"]:
            if position is not None:
                yield f"a gap without a beginning ({fields['cause']}) after {position}"
            return
        first, last = int(fields["from"]), int(fields["to"])
        if position is not None and first != position + 1:
            yield f"a gap begins at {first}, the position is {position}"
        described = f"a gap ({fields['cause']}) from {first} to {last}"
        known = sum(1 for number in skipped if first <= number <= last)
        for number, line in _between(made, first, last):
            begin = line.data.get("U", number)
            known += min(number, last) - max(begin, first) + 1
            if not self._may_be_lost(line):
                yield f"{described} names {number}, which was sent to {line.to}: {line}"
                return
        if known < last - first + 1:
            yield f"{described} names numbers that never were"

    def _may_be_lost(self, line: Line) -> bool:
        """Whether all connections may have lost the frame, according to the exchange."""
        return all(self._connections.may_be_lost(connection, line.at_us) for connection in line.to)

    def _end_of_sequenced(self, made: Mapping[int, Line], position: int | None) -> Iterator[str]:
        last = max(
            (number for number, line in made.items() if line.data["E"] <= self.until_us),
            default=None,
        )
        if last is not None and (position is None or position < last):
            yield f"ends at {position}, the exchange was at {last}"

    # Streams without numbers ----------------------------------------------------------------------

    def _by_content(self, stream: str) -> Iterator[str]:
        """Events that are neither stored once nor within an interval of an outage."""
        there: Counter[int] = Counter()
        fills: Counter[tuple[str, int]] = Counter()  # fills from history, by trade
        outages: list[tuple[int, int, str]] = []
        for _, fields in entries(self._client, stream):
            if fields["type"] == "gap":
                gap = (int(fields["from_us"] or 0), int(fields["to_us"]), fields["cause"])
                # The end of the run makes gaps too, which begin at the last proof: they prove
                # nothing.
                if gap[0] < self.until_us:
                    outages.append(gap)
                if gap[1] <= self.until_us:
                    self.gaps[truth.kind(stream), fields["cause"]] += 1
            elif fields.get("source") == "rest":
                self.from_history += 1
                fills[fields["symbol"], int(fields["trade_id"])] += 1
            elif fields["type"] not in truth.OWN_TYPES:
                there[int(fields["event_us"])] += 1
        covered = self._connections.covered(stream)
        sent_us = [line.at_us for line in self._ledger.frames(stream) if line.to]
        frames = sent(self._ledger.frames(stream))
        marking = Marking(stream, self._connections, frames)
        for from_us, to_us, cause in outages:
            described = f"a gap ({cause}) from {from_us} to {to_us}, but it was received"
            if received_us := marking.needless_us(from_us, to_us):
                yield f"{described} for {received_us / 1e6:.1f} s of it"
            begun_us, ended_us = frames.at_us(from_us), frames.at_us(to_us)
            was_silent = stream.startswith(TICKS) and not _any_between(sent_us, begun_us, ended_us)
            if covers(covered, begun_us, ended_us) and not was_silent:
                yield f"{described} all along"
        yield from self._events(stream, there, fills, outages)

    def _events(
        self,
        stream: str,
        there: Counter[int],
        fills: Mapping[tuple[str, int], int],
        outages: Sequence[tuple[int, int, str]],
    ) -> Iterator[str]:
        made: dict[int, Line] = {}
        for line in self._ledger.frames(stream):
            event_us = line.data["E"]
            if "e" not in line.data or not self._since_us <= event_us <= self.until_us:
                continue  # without `e`: the current position, sent at a subscription
            made[event_us] = line
            if (trade := line.data.get("t")) is not None:
                there[event_us] += fills.get((line.data["s"], trade), 0)
            if there[event_us] > 1:
                yield f"{event_us} is there {there[event_us]} times: {line.data}"
            # An exchange behind its schedule sends an event later than its stamp.
            if not there[event_us] and not any(
                a <= line.at_us and event_us <= b for a, b, _ in outages
            ):
                is_state = not stream.startswith(EVENTS)
                if is_state and self._connections.may_be_overtaken(stream, line):
                    continue
                near = min(outages, key=lambda gap: abs(gap[0] - event_us), default=None)
                yield f"{event_us} is missing, and no gap says so (nearest {near}): {line}"
        yield from self._dead(stream, made, {event_us for event_us in made if there[event_us]})

    # Books ----------------------------------------------------------------------------------------

    def _books(self, stream: str) -> Iterator[str]:
        """Differences of the book from Redis and the exchange's, before each gap, at each snapshot
        and at the end.
        """
        exchange = ExchangeBook(self._ledger, symbol_of(stream))
        mine: tuple[Side, Side] | None = None
        at = 0
        for entry_id, fields in entries(self._client, stream):
            if fields["type"] == "gap":
                if mine is not None and (flaw := exchange.differs(mine, at)):
                    yield f"before the gap {entry_id}: {flaw}"
                mine = None
            elif fields["type"] == "depth_snapshot":
                if mine is not None and (flaw := exchange.differs(mine, at)):
                    yield f"before the snapshot {entry_id}: {flaw}"
                mine = (_levels(fields["bids"]), _levels(fields["asks"]))
                at = int(fields["update_id"])
                if flaw := exchange.differs(mine, at):
                    yield f"the snapshot {entry_id}: {flaw}"
            elif mine is not None:
                at = int(fields["last_update_id"])
                _apply(mine[0], fields["bids"])
                _apply(mine[1], fields["asks"])
        if mine is None:
            yield "ends without a book"
        elif flaw := exchange.differs(mine, at):
            yield f"at the end: {flaw}"

    # Dead subscriptions ---------------------------------------------------------------------------

    def _dead(self, stream: str, made: Mapping[int, Line], live: set[int]) -> Iterator[str]:
        """Intervals in which the exchange had messages and none was stored for too long."""
        since_us: int | None = None
        for key in sorted(made):
            event_us = made[key].data["E"]
            if not self._since_us <= event_us <= self.until_us:
                continue
            if key not in live:
                since_us = since_us or event_us
                continue
            yield from self._was_dead(stream, since_us, event_us)
            since_us = None
        yield from self._was_dead(stream, since_us, self.until_us)

    def _was_dead(self, stream: str, since_us: int | None, until_us: int) -> Iterator[str]:
        if since_us is None:
            return
        kind, dead_s = truth.kind(stream), (until_us - since_us) / 1e6
        self.dead_s[kind] = max(dead_s, self.dead_s.get(kind, 0.0))
        if dead_s > DEAD_LIMIT_S.get(kind, float("inf")):
            yield f"was dead for {dead_s:.1f} s, from {since_us} to {until_us}"


class ExchangeBook:
    """The exchange's book of one market from its ledger, at rising update IDs."""

    def __init__(self, ledger: ExchangeLedger, symbol: str) -> None:
        opening = next(note for note in ledger.notes if note.get("book") == symbol)
        self._at: int = opening["u"]
        self._bids = {_trimmed(price): _trimmed(size) for price, size in opening["bids"]}
        self._asks = {_trimmed(price): _trimmed(size) for price, size in opening["asks"]}
        self._frames = ledger.frames(f"depth.{symbol}")
        self._next = next(self._frames, None)

    def differs(self, book: tuple[Side, Side], at: int) -> str:
        """How `book` differs from the exchange's book at update ID `at`; empty if it does not."""
        while self._next is not None and self._next.data["u"] <= at:
            data = self._next.data
            _put(self._bids, data["b"])
            _put(self._asks, data["a"])
            self._at = data["u"]
            self._next = next(self._frames, None)
        for name, mine, its in (("bids", book[0], self._bids), ("asks", book[1], self._asks)):
            if mine != its:
                odd = sorted(set(mine.items()) ^ set(its.items()))[:4]
                return f"{name} at {at} differ from the exchange's at {self._at}: {odd}"
        return ""


def truth_of_history(data: Mapping[str, Any], fields: Mapping[str, str]) -> str:
    """How a trade from history differs from the missed frame; empty if it does not.

    History trims decimals, has whole milliseconds, and has no order IDs.
    """
    wanted = {
        "price": _trimmed(data["p"]),
        "quantity": _trimmed(data["q"]),
        "buyer_is_maker": "true" if data["m"] else "false",
        "engine_us": str(data["T"] // 1000 * 1000),
        "symbol": data["s"],
    }
    for name, value in wanted.items():
        if _trimmed(fields[name]) != value:
            return f"{name} is {fields[name]}, the trade's is {value}: {data}"
    return ""


def _any_between(sorted_us: Sequence[int], from_us: int, to_us: int) -> bool:
    """Whether a time lies within the interval, more than EDGE_US from both ends."""
    first = bisect_right(sorted_us, from_us + EDGE_US)
    return first < len(sorted_us) and sorted_us[first] < to_us - EDGE_US


def _between(made: Mapping[int, Line], first: int, last: int) -> Iterator[tuple[int, Line]]:
    """The frames that contain these numbers; aggregated frames contain several."""
    return (
        (number, line)
        for number, line in made.items()
        if number >= first and line.data.get("U", number) <= last
    )


def _number(stream: str, data: Mapping[str, Any]) -> int:
    return int(data["t" if stream.startswith("trade.") else "u"])


def _entry_number(fields: Mapping[str, str]) -> int:
    return int(fields.get("last_update_id") or fields["trade_id"])


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _levels(text: str) -> Side:
    side: Side = {}
    _apply(side, text)
    return side


def _apply(side: Side, text: str) -> None:
    _put(side, json.loads(text))


def _put(side: Side, rows: Sequence[Sequence[str]]) -> None:
    for price, size in rows:
        if float(size) == 0:
            side.pop(_trimmed(price), None)
        else:
            side[_trimmed(price)] = _trimmed(size)
