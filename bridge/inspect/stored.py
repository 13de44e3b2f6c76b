"""One entry, independent of what stores it (pure)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import itemgetter
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from bridge.contract.entry import BadEntry
from bridge.contract.events import Level
from bridge.contract.identity import EntryId
from bridge.contract.whole_number import whole_number

OWN_TYPES = frozenset(
    {"gap", "depth_snapshot", "orders_snapshot", "positions_snapshot", "balances_snapshot"}
)
_OF_A_FILL = ("type", "symbol", "trade_id", "order_id")
_SIDE = TypeAdapter(list[Level])
_RECEIVED_ANEW = ("event_us", "received_us")  # differ between copies of one message


class Stored(NamedTuple):
    """One entry: its ID, and the names and values of its fields, in stored order."""

    id: str
    names: tuple[str, ...]
    values: Sequence[str]

    @property
    def type(self) -> str:
        return self.values[0] if self.names and self.names[0] == "type" else self.text("type")

    @property
    def is_message(self) -> bool:
        """Whether it is the exchange's message, not an entry of the bridge's own."""
        return self.type not in OWN_TYPES

    @property
    def fields(self) -> dict[str, str]:
        return dict(zip(self.names, self.values, strict=False))

    def text(self, name: str) -> str:
        """A field's value; empty where it is missing."""
        at = places(self.names).get(name, -1)
        return self.values[at] if 0 <= at < len(self.values) else ""

    def number(self, name: str) -> int | None:
        """A field as a whole number; None where it is not one."""
        return whole_number(self.text(name))

    def levels(self, name: str) -> list[Level]:
        """A side of the book. Raises BadEntry where the field is not one."""
        text = self.text(name)
        if text == "[]":
            return []
        try:
            return _SIDE.validate_json(text)
        except ValidationError:
            raise BadEntry(f"{self.id}: {name} is no side of a book") from None


@lru_cache(maxsize=1024)
def places(names: tuple[str, ...]) -> Mapping[str, int]:
    """The index of each field."""
    return {name: at for at, name in enumerate(names)}


@lru_cache(maxsize=1024)
def _content(names: tuple[str, ...]) -> Callable[[Sequence[str]], Iterable[str]]:
    """A function that selects the values that are equal in all copies of a message."""
    indexes = [at for at, name in enumerate(names) if name not in _RECEIVED_ANEW]
    return (
        itemgetter(*indexes) if len(indexes) > 1 else lambda values: [values[at] for at in indexes]
    )


def digest(names: tuple[str, ...], values: Sequence[str]) -> int:
    """A 64-bit digest of the entry's content, without send and receive times, in which copies of a
    message differ.
    """
    return _digest("\x1f".join(_content(names)(values)))


def identity(names: tuple[str, ...], values: Sequence[str]) -> int:
    """As `digest`, over what identifies the message: a fill by its trade and order, whether
    received or fetched.
    """
    if values[0] == "orderFill":
        at = places(names)
        named = [values[at[name]] for name in _OF_A_FILL if name in at]
        if all(named):
            return _digest("\x1f".join(named))
    return digest(names, values)


def _digest(text: str) -> int:
    bits = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, usedforsecurity=False)
    return int.from_bytes(bits.digest())


def entry_id(text: str) -> EntryId:
    """Parse an entry ID. Raises BadEntry."""
    try:
        return EntryId.parse(text)
    except ValueError:
        raise BadEntry(f"{text!r} is no entry ID") from None
