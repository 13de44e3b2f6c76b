"""Requests for quotes, alternately from both sides: the account requests one, then quotes for
another party.

Each conversation follows a script of the exchange's events and, when filled, transfers the
account's money. Pure. Knows no books: RFQs trade outside of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from simulator.account import OpenRfq
from simulator.accounts import Accounts
from simulator.book import Side
from simulator.decimals import padded, trimmed
from simulator.events import RfqUpdate
from simulator.listing import MarketType
from simulator.market import Market
from simulator.orders import Order
from simulator.tape import Tape

# RFQ and quote ids are whole numbers beyond 2^53.
FIRST_RFQ_ID = 113_392_053_149_171_712
LIFETIME_MS = 60_000
FILLED = frozenset({"rfqFilled"})
OPENED = frozenset({"rfqAccepted", "rfqRefreshed"})

Fields = dict[str, str | int]
# An event's name, its further members, and the state after it.
Line = tuple[str, str, str]

TERMS = "CSq"
LIFE = "wW"
ASKED_AND_FILLED: tuple[Line, ...] = (
    ("rfqAccepted", TERMS + LIFE, "New"),
    ("rfqCandidate", "u" + TERMS + "p", "New"),
    ("rfqAcceptedBinding", "u" + TERMS + "p", "New"),
    ("rfqFilled", "u" + TERMS + "p", "Filled"),
)
ASKED_AND_CANCELLED: tuple[Line, ...] = (
    ("rfqAccepted", TERMS + LIFE, "New"),
    ("rfqRefreshed", TERMS + LIFE, "New"),
    ("rfqCandidate", "u" + TERMS + "p", "New"),
    ("rfqCancelled", TERMS + LIFE, "Cancelled"),
)
QUOTED_AND_FILLED: tuple[Line, ...] = (
    ("rfqActive", "q" + LIFE, "New"),
    ("quoteAccepted", "uC", "New"),
    ("rfqFilled", "u" + TERMS + "p", "Filled"),
)
QUOTED_AND_CANCELLED: tuple[Line, ...] = (
    ("rfqActive", "q" + LIFE, "New"),
    ("quoteAccepted", "uC", "New"),
    ("quoteCancelled", "uC", "Cancelled"),
)
CONVERSATIONS = (
    ASKED_AND_FILLED,
    QUOTED_AND_FILLED,
    ASKED_AND_CANCELLED,
    QUOTED_AND_CANCELLED,
)


class RfqTalk:
    """The RFQ conversations of one account, one event at a time."""

    def __init__(self, key: str, accounts: Accounts, draw: random.Random) -> None:
        self._key = key
        self._accounts = accounts
        self._draw = draw
        markets = accounts.markets.values()
        self._spots = [m for m in markets if m.listing.market_type is MarketType.SPOT]
        self._rfq_id = FIRST_RFQ_ID + draw.randrange(1_000_000) * 2**20
        self._lines = self._all_lines()

    def advance(self, tape: Tape) -> None:
        """Emit the next event."""
        if self._spots:
            next(self._lines)(tape)

    def delist_market(self, market: Market) -> None:
        """Stop requesting quotes in a delisted market."""
        if market in self._spots:
            self._spots.remove(market)

    def _all_lines(self) -> Iterator[_Step]:
        """Events of every kind of conversation in turn, without end."""
        while True:
            for conversation in CONVERSATIONS:
                market = self._draw.choice(self._spots)
                self._rfq_id += self._draw.randrange(1, 2**20)
                order = self._terms(market)
                for line in conversation:
                    yield _Step(self._accounts, self._rfq_id, order, line)

    def _terms(self, market: Market) -> Order:
        """The requested terms, held as an order that never reaches a book."""
        side = Side.BID if self._draw.random() < 0.5 else Side.ASK
        return Order(
            order_id=str(self._rfq_id),
            account=self._key,
            listing=market.listing,
            side=side,
            quantity=1 + self._draw.randrange(market.listing.typical_quantity // 4),
            price=market.last_price,
            client_id=self._draw.randrange(1, 1_000_000),
        )


class _Step:
    """One event of one conversation, ready to be emitted."""

    def __init__(self, accounts: Accounts, rfq_id: int, order: Order, line: Line) -> None:
        self._accounts = accounts
        self._rfq_id = rfq_id
        self._order = order
        self._name, self._members, self._state = line

    def __call__(self, tape: Tape) -> None:
        order = self._order
        symbol = f"{order.listing.symbol}_RFQ"
        stream = "account.rfqUpdate"
        now_ms = tape.engine_us // 1000
        values = self._values(now_ms)
        fields = {member: values[member] for member in self._members}
        fields |= {"R": self._rfq_id, "X": self._state, "s": symbol}
        tape.write(
            RfqUpdate(
                (stream, f"{stream}.{symbol}"),
                order.account,
                tape.stamp(),
                tape.engine_us,
                self._name,
                fields,
            )
        )
        self._remember(symbol, now_ms)
        if self._name in FILLED:
            self._accounts.settle_rfq(tape, order, self._rfq_id)

    def _remember(self, symbol: str, now_ms: int) -> None:
        """Keep the account's request among its open ones, until it is settled."""
        rfqs = self._accounts.by_key[self._order.account].rfqs
        if self._name in OPENED:
            rfqs[self._rfq_id] = OpenRfq(
                self._rfq_id, symbol, self._order, now_ms, now_ms + LIFETIME_MS
            )
        elif self._state != "New":
            rfqs.pop(self._rfq_id, None)
        elif self._name == "rfqCandidate" and self._rfq_id in rfqs:
            rfqs[self._rfq_id].quote_id = self._rfq_id + 2**20 - 1
            rfqs[self._rfq_id].quoted_ms = now_ms

    def _values(self, now_ms: int) -> Fields:
        order = self._order
        assert order.price is not None
        return {
            "C": str(order.client_id),
            "S": order.side,
            "W": now_ms + LIFETIME_MS,
            "p": padded(order.price, order.listing.price_places),
            "q": trimmed(order.quantity, order.listing.quantity_places),
            "u": self._rfq_id + 2**20 - 1,
            "w": now_ms,
        }
