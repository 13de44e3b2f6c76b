"""What streams have missed and REST may know (pure): trades by number, fills of deaf intervals.

The replies go into the lines they are of, before what waits for them; what becomes of a hole is
noted in the ledger.
"""

from collections.abc import Callable, Iterable, Sequence

from bridge.contract.identity import EntryId
from bridge.pipeline.items import Item, fill_from_history
from bridge.pipeline.ledger import of_mended, of_unseen
from bridge.pipeline.numbered import SKIPPED, NumberedLine
from bridge.pipeline.trade_holes import Reach, TradeHoles
from bridge.pipeline.unnumbered import UnnumberedLine
from bridge.protocol.rest import fills_page, trades_page

FILLS = "fills"  # said of a page of them
END = "end"  # said of a stream: history reaches no further, or has all been told

Line = NumberedLine | UnnumberedLine


class Missing:
    """Trade and order streams by name.

    `put(line, items, offset)` puts in what was missing, and says whether it did; `note(record,
    offset)` adds a line to the ledger; `ask(name)` asks REST.
    """

    def __init__(
        self,
        patience_us: int,
        put: Callable[[Line, Sequence[Item], int], bool],
        note: Callable[[Item, int], None],
        ask: Callable[[str], bool],
    ) -> None:
        self._patience_us = patience_us
        self._put = put
        self._note = note
        self._ask = ask
        self._trades: dict[str, tuple[NumberedLine, TradeHoles]] = {}
        self._deaf: dict[str, tuple[int, int]] = {}  # order streams: from when to when

    def add(self, line: NumberedLine) -> None:
        """A trade stream: its numbers are followed."""
        self._trades[line.stream.name] = line, TradeHoles(self._patience_us)

    def follows(self, name: str) -> bool:
        """Is it a trade stream?"""
        return name in self._trades

    def forget(self) -> None:
        """What follows tells everything anew."""
        for _, holes in self._trades.values():
            holes.forget()
        self._deaf.clear()

    def take_over(self, other: "Missing", now_us: int) -> None:
        """Go on with what another has followed: its items are those that wait in the lines."""
        self._trades |= other._trades
        self._go_on(other._trades, now_us)

    # ---- trades --------------------------------------------------------------------------------

    def hear(self, name: str, item: Item, *, is_rehearing: bool) -> None:
        """A trade came."""
        line, holes = self._trades[name]
        if holes.hear(item):
            if is_rehearing:
                holes.wait_until_known(item)
            self._ask(name)
        if holes.has_given_up:
            holes.has_given_up = False
            line.release()

    def disconnected(self, name: str, cause: str) -> None:
        """What is missing before the next trade was missed for this reason."""
        if name in self._trades:
            self._trades[name][1].disconnected(cause)

    def marked(self, name: str, to: int) -> None:
        """A gap was written up to there."""
        if name in self._trades:
            self._trades[name][1].marked(to)

    def refused(self, line: NumberedLine, now_us: int) -> None:
        """Redis may have refused a trade though no number told of a hole before it."""
        name, held = line.stream.name, line.held_without_reason()
        if name not in self._trades or held is None:
            return
        missing_from = EntryId.parse(line.confirmed).position + 1
        if self._trades[name][1].missing(missing_from, held, now_us):
            line.release()
            self._ask(name)

    def trades_wanted(self, name: str, now_us: int) -> int | None:
        """How many of its newest trades history must show to mend the stream; None: it is whole."""
        return self._trades[name][1].wanted(now_us)

    def take_trades(
        self, name: str, text: bytes, received_us: int, offset: int, what: str
    ) -> Reach:
        """A page of history, or its end. Raises BadBody."""
        line, holes = self._trades[name]
        if what == END:
            reach, ended = Reach.DONE, holes.end_of_history(received_us)
        else:
            page = trades_page(line.stream.symbol, text, received_us)
            reach, ended = holes.page(page, received_us)
        for mended in ended:
            is_put = self._put(line, mended.rows, offset)
            if is_put and mended.from_ <= mended.to:
                line.counters.repaired += 1
                self._note(of_mended(line.stream, mended, received_us), offset)
        unseen, holes.unseen = holes.unseen, []
        for from_, to in unseen:
            line.counters.gaps += 1
            self._note(of_unseen(line.stream, from_, to, SKIPPED, received_us), offset)
        return reach

    def wait_no_longer(self) -> None:
        """There is no room for what waits for missing trades: they are marked."""
        for line, holes in self._trades.values():
            holes.wait_no_longer()
            line.release()

    def ask(self, now_us: int) -> None:
        """What follows is new: ask for all that is missing."""
        self._go_on(self._trades, now_us)
        for name in self._deaf:
            self._ask(name)

    def sparse(self) -> list[str]:
        """Trade streams whose numbers turned out not to be dense."""
        return [name for name, (_, holes) in self._trades.items() if holes.is_sparse]

    def restore_sparse(self, names: Iterable[str]) -> None:
        """What `sparse` said at an earlier time."""
        for name in names:
            if name in self._trades:
                self._trades[name][1].is_sparse = True

    def _go_on(self, names: Iterable[str], now_us: int) -> None:
        for name in names:
            line, holes = self._trades[name]
            holes.wait_as_usual()
            line.release()
            if holes.wanted(now_us):
                self._ask(name)

    # ---- fills ---------------------------------------------------------------------------------

    def deaf(self, name: str, from_us: int, to_us: int) -> None:
        """Nobody listened to this order stream then."""
        before = self._deaf.get(name, (from_us, to_us))
        self._deaf[name] = min(from_us, before[0]), max(to_us, before[1])
        self._ask(name)

    def fills_wanted(self, name: str) -> tuple[int, int] | None:
        """From when to when (µs) fills of this order stream may be missing; None: none are."""
        return self._deaf.get(name)

    def take_fills(self, line: Line, text: bytes, received_us: int, offset: int, what: str) -> None:
        """A page of the account's fills, or their end. Raises BadBody."""
        if what == END:
            self._deaf.pop(line.stream.name, None)
            return
        fills = [fill_from_history(event) for event in fills_page(text, received_us)]
        self._put(line, fills, offset)
