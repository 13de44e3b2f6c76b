"""The books of all depth streams, and the snapshots made of them (pure).

A snapshot is placed behind the delta at which it is exact: when a REST body has been joined, at
fixed update ids and times, and after a gap that arose between the bridge and Redis, for which no
REST request is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bridge.contract.events import DepthSnapshot
from bridge.contract.identity import BELIEVABLE_US, first_believable_us
from bridge.core.book import Delta, DepthBook
from bridge.core.entries import Slot, slot_of, snapshot_entry
from bridge.core.outcomes import Join
from bridge.protocol.rest import depth_body

TRIES = 3  # at later deltas, where the stream is ahead of the snapshot


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    """When a snapshot is written (each so many updates and ms; 0: not), and its levels a side."""

    every_updates: int
    every_ms: int = 0
    levels: int = 1000


@dataclass(slots=True)
class _Book:
    """One stream's book, and the state of its requests and snapshots."""

    book: DepthBook
    symbol: str
    position: int = 0  # the journal position of the newest delta
    is_requested: bool = False  # since the book was last known
    tries: int = 0  # how often a misplaced snapshot is still tried again, at the next deltas

    def begin_anew(self) -> None:
        """Reset the book: the stream was not followed for a while."""
        self.book.reset()
        self.is_requested = False

    def request(self) -> bool:
        """Request the book. Returns False if it is known or requested already."""
        is_wanted = not (self.book.joined or self.is_requested)
        self.is_requested = self.is_requested or is_wanted
        return is_wanted

    def forget_request(self) -> None:
        """Forget that the book was requested."""
        self.is_requested = False

    def retry(self, tries: int) -> None:
        """Try a misplaced snapshot again at the next deltas, so often at most."""
        self.tries = tries or self.tries

    def try_follow(self, delta: Delta, ms: int, position: int) -> bool:
        """Follow a delta that continues a known book and at which no snapshot is due. False: it is
        not such a delta, and nothing was done.
        """
        if self.tries or not self.book.try_follow(delta, ms):
            return False
        self.position = position
        return True

    def take_tries(self, position: int) -> int:
        """Note a delta's journal position. Returns and clears the tries left for a snapshot."""
        tries, self.tries, self.position = self.tries, 0, position
        return tries


class When(NamedTuple):
    """When a record was received, by the wall clock and the steady one, and its position."""

    received_us: int
    at_us: int
    position: int


class Books:
    """Depth streams by name. Methods return the snapshot that is to be put into the stream.

    `requests`: streams whose book is to be fetched over REST are added here.
    """

    def __init__(self, plan: SnapshotPlan, requests: dict[str, None]) -> None:
        self.plan = plan
        self._books: dict[str, _Book] = {}
        self._requests = requests

    def __contains__(self, name: str) -> bool:
        return name in self._books

    def __iter__(self) -> Iterator[str]:
        return iter(self._books)

    def add(self, name: str, symbol: str) -> None:
        plan = self.plan
        book = DepthBook(plan.every_updates, plan.every_ms, plan.levels)
        self._books[name] = _Book(book, symbol)

    def remove(self, name: str) -> None:
        self._books.pop(name, None)

    def reset(self, name: str) -> None:
        """Reset a stream's book: the stream was not followed for a while."""
        if (each := self._books.get(name)) is not None:
            each.begin_anew()

    def is_missing(self, name: str) -> bool:
        """Whether it is a depth stream whose book is not known."""
        each = self._books.get(name)
        return each is not None and not each.book.joined

    def request(self, name: str) -> None:
        """Request the book over REST, unless it is known or requested already."""
        if self._books[name].request():
            self._requests[name] = None

    def request_anew(self, name: str) -> None:
        """Request the book again unless it is known: an earlier reply would be too late."""
        self._books[name].forget_request()
        self.request(name)

    def take_body(self, name: str, text: bytes, when: When) -> tuple[Join, Slot | None]:
        """Take a REST body. Returns its join, and the snapshot if there is one. Raises BadBody."""
        body, each = depth_body(text), self._books[name]
        if each.book.joined:
            return Join.PLACED, None
        joined = each.book.join(body.last_update_id, body.bids, body.asks, when.at_us)
        if joined is Join.PLACED:
            return joined, _snapshot(each, 0, when, tries=TRIES)
        if joined is Join.RESTS:
            is_believable = abs(body.timestamp - when.received_us) <= BELIEVABLE_US
            ms = (body.timestamp if is_believable else when.received_us) // 1000
            slot = _snapshot(each, ms, when, tries=TRIES)
            slot.rest()
            return joined, slot
        return joined, None

    def try_follow(self, name: str, delta: Delta, ms: int, position: int) -> bool:
        """Follow a delta that only continues its book, the usual case on a single connection.
        False: `follow` is needed, and nothing was done.
        """
        return self._books[name].try_follow(delta, ms, position)

    def follow(self, name: str, delta: Delta, slot: Slot, hold_us: int | None) -> Sequence[Slot]:
        """Follow a delta, whose entry is in this slot. `hold_us`: how long another connection
        may take to bring a missing delta before it; None: there is no other.
        """
        each = self._books[name]
        if hold_us is None and not each.book.has_early:
            snapshot = self._follow(name, each, delta, slot, slot.entry.ms)
            return () if snapshot is None else (snapshot,)
        snapshots = []
        for following in each.book.in_order(delta, slot.at_us, hold_us or 0):
            times_us = following.engine_us, following.event_us
            ms = first_believable_us(times_us, slot.entry.received_us) // 1000
            snapshot = self._follow(name, each, following, slot, ms)
            if snapshot is not None:
                snapshots.append(snapshot)
        return snapshots

    def retry(self, name: str, tries: int) -> None:
        """Try a misplaced snapshot again at the next deltas, so often at most."""
        self._books[name].retry(tries)

    def own_snapshot(self, name: str, when: When) -> Slot | None:
        """A snapshot of the bridge's own book, behind its newest delta; None: it is not known."""
        each = self._books[name]
        if not each.book.joined:
            return None
        when = when._replace(position=each.position)
        return _snapshot(each, each.book.ms, when, tries=TRIES)

    def position(self, name: str) -> int:
        """The journal position of the newest delta of the book."""
        return self._books[name].position

    def _follow(self, name: str, each: _Book, delta: Delta, slot: Slot, ms: int) -> Slot | None:
        book = each.book
        was_joined, was_at = book.joined, book.number
        joined = book.follow(delta, ms)
        crosses, tries = book.crosses(delta, ms), each.take_tries(slot.position)
        if joined is Join.PLACED:
            return _snapshot(each, ms, _when(slot), tries=TRIES)
        if crosses or (tries and book.joined):
            return _snapshot(each, ms, _when(slot), tries=max(0, tries - 1))
        has_broken = was_joined and not book.joined
        if has_broken:
            each.forget_request()
        if joined is Join.TOO_OLD or was_at == 0 or has_broken:
            self.request(name)
        return None


def _when(slot: Slot) -> When:
    return When(slot.entry.received_us, slot.at_us, slot.position)


def _snapshot(each: _Book, ms: int, when: When, *, tries: int) -> Slot:
    book = each.book
    bids, asks = book.levels()
    event = DepthSnapshot(
        symbol=each.symbol,
        update_id=book.number,
        rest_update_id=book.rest_update_id or None,
        bids=bids,
        asks=asks,
        received_us=when.received_us,
    )
    book.forget_rest_update_id()
    slot = slot_of(snapshot_entry(event, ms), when.position, when.at_us)
    slot.try_again(tries)
    return slot
