"""The books of all depth streams, and the snapshots that come of them (pure).

A snapshot is placed behind the delta it is exact at: when REST's reply has been joined, at fixed
update ids and times, and after a gap of Redis' or of the bridge's own making, for which the
exchange need not be asked again.
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

TRIES = 3  # at later deltas, where others are ahead


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    """When a whole book is written: each so many updates and ms (0: not), so many levels a side."""

    every_updates: int
    every_ms: int = 0
    levels: int = 1000


@dataclass(slots=True)
class _Book:
    """One stream's book, and what is to be done about it."""

    book: DepthBook
    symbol: str
    position: int = 0  # where the journal has the newest delta
    is_requested: bool = False  # since it was last known
    tries: int = 0  # at the next delta, as often as this: its last place was taken

    def begin_anew(self) -> None:
        """The stream was not followed for a while."""
        self.book.reset()
        self.is_requested = False

    def request(self) -> bool:
        """Is the book to be asked for: neither known nor asked for already? It is now."""
        is_wanted = not (self.book.joined or self.is_requested)
        self.is_requested = self.is_requested or is_wanted
        return is_wanted

    def forget_request(self) -> None:
        """What was asked for does not count any more."""
        self.is_requested = False

    def retry(self, tries: int) -> None:
        """A snapshot found no place: try again at the next delta, as often as this."""
        self.tries = tries or self.tries

    def goes_on(self, delta: Delta, ms: int, position: int) -> bool:
        """Take a delta that continues a known book where no snapshot is due. False: it is another,
        and nothing was done.
        """
        if self.tries or not self.book.goes_on(delta, ms):
            return False
        self.position = position
        return True

    def take_tries(self, position: int) -> int:
        """A delta comes, which the journal has there: how often a snapshot is still tried."""
        tries, self.tries, self.position = self.tries, 0, position
        return tries


class When(NamedTuple):
    """When something came, by the wall clock and the steady one, and where the journal has it."""

    received_us: int
    at_us: int
    position: int


class Books:
    """Depth streams by name. Methods return the snapshot that is to be put into the stream.

    `requests` is where streams are put whose book is wanted of REST.
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
        """The stream was not followed for a while: its book begins anew."""
        if (each := self._books.get(name)) is not None:
            each.begin_anew()

    def is_missing(self, name: str) -> bool:
        """Is it a depth stream whose book is not known?"""
        each = self._books.get(name)
        return each is not None and not each.book.joined

    def request(self, name: str) -> None:
        """Ask REST for the book, unless it is known or asked for already."""
        if self._books[name].request():
            self._requests[name] = None

    def request_anew(self, name: str) -> None:
        """Ask for the book unless it is known; a reply that was under way came late."""
        self._books[name].forget_request()
        self.request(name)

    def take_body(self, name: str, text: bytes, when: When) -> tuple[Join, Slot | None]:
        """REST's reply: placed exactly, or to be asked for again. Raises BadBody."""
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

    def goes_on(self, name: str, delta: Delta, ms: int, position: int) -> bool:
        """Take a delta that only continues its book, as nearly all, where no other connection may
        bring what is missing before it. False: it is to be followed, and nothing was done.
        """
        return self._books[name].goes_on(delta, ms, position)

    def follow(
        self, name: str, delta: Delta, slot: Slot, patience_us: int | None
    ) -> Sequence[Slot]:
        """Follow a delta, which waits in this slot. `patience_us`: how long another connection may
        take to bring what is missing before it; None: there is none.
        """
        each = self._books[name]
        if patience_us is None and not each.book.has_early:
            snapshot = self._follow(name, each, delta, slot, slot.entry.ms)
            return () if snapshot is None else (snapshot,)
        snapshots = []
        for following in each.book.in_order(delta, slot.at_us, patience_us or 0):
            times_us = following.engine_us, following.event_us
            ms = first_believable_us(times_us, slot.entry.received_us) // 1000
            snapshot = self._follow(name, each, following, slot, ms)
            if snapshot is not None:
                snapshots.append(snapshot)
        return snapshots

    def retry(self, name: str, tries: int) -> None:
        """A snapshot found no place: try again at the next delta, as often as this."""
        self._books[name].retry(tries)

    def own_snapshot(self, name: str, when: When) -> Slot | None:
        """The bridge's own book, behind its newest delta: where it is known, it is as good as
        REST's.
        """
        each = self._books[name]
        if not each.book.joined:
            return None
        when = when._replace(position=each.position)
        return _snapshot(each, each.book.ms, when, tries=TRIES)

    def position(self, name: str) -> int:
        """Where the journal has the newest delta of the book."""
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
