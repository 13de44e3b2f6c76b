"""The books of all depth streams, and the snapshots that come of them (pure).

A snapshot is placed behind the delta it is exact at: when REST's reply has been joined, at fixed
update ids and times, and after a gap of Redis' or of the bridge's own making, for which nobody has
to be asked again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bridge.contract.events import Depth, DepthSnapshot
from bridge.contract.identity import BELIEVABLE_US, believable_us
from bridge.pipeline.book import DepthBook, Join
from bridge.pipeline.items import Item, snapshot
from bridge.pipeline.numbered import NumberedLine
from bridge.protocol.rest import depth_body

TRIES = 3  # at later deltas, where others are ahead


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    """When a whole book is written: each so many updates and ms (0: not), so many levels a side."""

    every_updates: int
    every_ms: int = 0
    levels: int = 1000


class Books:
    """Depth streams by name. `put(name, item, offset)` takes what is to be written; `ask(name)`
    asks REST for a book, and says whether it does.
    """

    def __init__(
        self,
        plan: SnapshotPlan,
        put: Callable[[str, Item, int], None],
        ask: Callable[[str], bool],
    ) -> None:
        self.plan = plan
        self._put = put
        self._ask = ask
        self._books: dict[str, DepthBook] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._books

    def __iter__(self) -> Iterator[str]:
        return iter(self._books)

    def add(self, name: str) -> None:
        plan = self.plan
        self._books[name] = DepthBook(plan.every_updates, plan.every_ms, plan.levels)

    def reset(self, name: str) -> None:
        """Nobody followed this stream: its book begins anew."""
        if name in self._books:
            self._books[name].reset()

    def misses(self, name: str) -> bool:
        """Is it a depth stream whose book is not known?"""
        return name in self._books and not self._books[name].joined

    def ask_for(self, name: str) -> None:
        """Ask for the book, unless it is known or asked for already."""
        book = self._books[name]
        if not (book.joined or book.is_asked_for):
            book.is_asked_for = self._ask(name)

    def ask_anew(self, name: str) -> None:
        """Ask for the book unless it is known; a reply that was under way was heard late."""
        self._books[name].is_asked_for = False
        self.ask_for(name)

    def take_body(self, name: str, symbol: str, text: bytes, received_us: int, offset: int) -> Join:
        """REST's reply: placed exactly, or to be asked for again. Raises BadBody."""
        body, book = depth_body(text), self._books[name]
        if book.joined:
            return Join.PLACED
        joined = book.join(body.last_update_id, body.bids, body.asks, received_us)
        if joined is Join.PLACED:
            self._place(name, symbol, received_us, 0, offset, tries=TRIES)
        elif joined is Join.STANDS:
            is_told = abs(body.timestamp - received_us) <= BELIEVABLE_US
            ms = (body.timestamp if is_told else received_us) // 1000
            self._place(name, symbol, received_us, ms, offset, tries=TRIES, stands=True)
        return joined

    def hear(
        self, name: str, delta: Depth, received_us: int, offset: int, patience_us: int | None
    ) -> None:
        """Follow a delta. `patience_us`: another connection may bring what is missing before it;
        None: there is none.
        """
        if patience_us is None and not self._books[name].has_early:
            self._follow(name, delta, received_us, offset)
            return
        for following in self._books[name].in_order(delta, received_us, patience_us or 0):
            self._follow(name, following, received_us, offset)

    def redis_answered(self, line: NumberedLine, now_us: int, *, may_place: bool) -> None:
        """After a gap, or where a snapshot found no place: the bridge's own book is as good as
        REST's, where it is known. (While it is not, it is asked for already.)
        """
        name, book = line.stream.name, self._books[line.stream.name]
        book.snapshot_tries, line.snapshot_tries = line.snapshot_tries or book.snapshot_tries, 0
        if line.takes_void_book() and book.joined and may_place:
            self._place(name, line.stream.symbol, now_us, book.ms, book.offset, tries=TRIES)

    def _follow(self, name: str, delta: Depth, received_us: int, offset: int) -> None:
        book, ms = self._books[name], believable_us(delta, received_us) // 1000
        was_joined, was_at = book.joined, book.position
        joined = book.hear(delta)
        book.offset = offset
        crosses, tries = book.crosses(delta, ms), book.snapshot_tries
        book.snapshot_tries = 0
        if joined is Join.PLACED:
            self._place(name, delta.symbol, received_us, ms, offset, tries=TRIES)
        elif crosses or (tries and book.joined):
            self._place(name, delta.symbol, received_us, ms, offset, tries=max(0, tries - 1))
        elif joined is Join.TOO_OLD or was_at == 0 or (was_joined and not book.joined):
            self.ask_for(name)

    def _place(
        self,
        name: str,
        symbol: str,
        received_us: int,
        ms: int,
        offset: int,
        *,
        tries: int,
        stands: bool = False,
    ) -> None:
        book = self._books[name]
        bids, asks = book.levels()
        event = DepthSnapshot(
            symbol=symbol,
            update_id=book.position,
            rest_update_id=book.rest_update_id or None,
            bids=bids,
            asks=asks,
            received_us=received_us,
        )
        book.rest_update_id = 0
        item = snapshot(event, ms)
        item.tries, item.stands = tries, stands
        self._put(name, item, offset)
