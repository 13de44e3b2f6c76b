"""Entry IDs, and the identity of messages (pure).

    <engine time, ms>-<sequence>

Sequenced streams (trade, depth): identity is the exchange's own number, in the sequence as
`position * 10 + slot`; slot 0 is the message, 1 a gap that ends at that position, 2 a depth
snapshot at it. The ms part is only for reading by time. Other streams: the sequence is the
microsecond within the millisecond times 1000, or the next one after the last if that is not lower;
identity is the content. The append script (`bridge/redis/append.lua`) decides which entries are
duplicates.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple, Self

from pydantic.fields import FieldInfo

from bridge.contract.events import (
    Depth,
    Event,
    Gap,
    GapRecord,
    OrderUpdate,
    Own,
    Trade,
    UnknownEvent,
)
from bridge.contract.fields import OURS, plain_decimal
from bridge.contract.moments import LAST_US
from bridge.contract.stream_types import STREAM_SPECS, Identity, Ordering

SLOTS = 10
POSITION_LIMIT = 9 * 10**14  # position * 10 must stay below 2^53: Lua's numbers are doubles
BELIEVABLE_US = 3_600_000_000  # an engine time more than 1 h from the receipt is not used

_ORDERED_BY_UPDATE_ID = frozenset(
    spec.model for spec in STREAM_SPECS.values() if spec.ordering is Ordering.UPDATE_ID
)
_HAS_PROVIDER_TIME = frozenset(
    spec.model for spec in STREAM_SPECS.values() if spec.ordering is Ordering.PROVIDER_TIME
)

EMPTY = "0-0"  # the last ID of a stream that does not exist


class EntryId(NamedTuple):
    """A Redis entry ID as two numbers; ordered as in Redis."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        ms, _, seq = text.partition("-")
        return tuple.__new__(cls, (int(ms), int(seq or 0)))  # `cls(…)` takes twice as long

    @property
    def position(self) -> int:
        """The exchange's number of an entry of a sequenced stream."""
        return self.seq // SLOTS

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


class Place(NamedTuple):
    """The place of a message in a sequenced stream: its number, and that of its predecessor."""

    position: int
    after: int


class BadIdentity(ValueError):
    """The message's own numbers are invalid; it is quarantined."""


# The fields of a sequenced message with the first and the last number that it covers.
NUMBERS: Mapping[type[Event], tuple[str, str]] = {
    Trade: ("trade_id", "trade_id"),
    Depth: ("first_update_id", "last_update_id"),
}


def place(event: Trade | Depth) -> Place:
    """Position and predecessor of a message of a sequenced stream. Raises BadIdentity."""
    if type(event) is Trade:
        number = first = event.trade_id
    else:
        number, first = event.last_update_id, event.first_update_id  # type: ignore[union-attr]
    if not 1 <= first <= number < POSITION_LIMIT:
        raise BadIdentity(_complaint(number, first))
    return Place(number, first - 1)


def _complaint(number: int, first: int) -> str:
    if first < 1:
        # Trade id 0 marked backstop fills before 2025-11: it could only ever look like a duplicate.
        return "its number is 0, so its place in the stream is unknown"
    if first > number:
        return f"first update id {first} is above last update id {number}"
    return f"its number {number} is above {POSITION_LIMIT}"


def believable_us(event: Event, received_us: int) -> int:
    """The exchange's time of the event, µs: engine time, else event time, else 0.

    A time is used only if it is within an hour of the frame's receipt (not of the present, so that
    a replay decides the same): a single absurd time must not become a stream's last ID.
    """
    engine_us: int | None = event.__dict__.get("engine_us")
    if engine_us is not None and -BELIEVABLE_US <= engine_us - received_us <= BELIEVABLE_US:
        return engine_us  # the usual case
    return first_believable_us(_other_times(event), received_us)


def first_believable_us(times_us: Iterable[int | None], received_us: int) -> int:
    """The first of these times within an hour of the receipt, else 0."""
    for moment_us in times_us:
        if moment_us is not None and abs(moment_us - received_us) <= BELIEVABLE_US:
            return moment_us
    return 0


def moment_us(entry_id: str, engine_us: int | None) -> int:
    """When a stored event happened, µs since 1970: the engine's time or, if that is missing or not
    believable beside the entry's ID, the time of the ID. Another program's ID may be no time; the
    result is at most `LAST_US`.
    """
    id_us = EntryId.parse(entry_id).ms * 1000
    if engine_us is not None and abs(engine_us - id_us) <= BELIEVABLE_US:
        id_us = engine_us
    return min(id_us, LAST_US)


def _other_times(event: Event) -> tuple[int | None, ...]:
    event_us = getattr(event, "event_us", None)
    if type(event) in _HAS_PROVIDER_TIME:
        return event_us, event.source_ms * 1000  # type: ignore[attr-defined]  # by its row
    return (event_us,)


def order_value(event: Event, event_us: int) -> int:
    """The order of a state in its stream: its update id, or `event_us` (`believable_us`).

    0: unknown; such a state is never late, and makes no other state late.
    """
    if type(event) in _ORDERED_BY_UPDATE_ID:
        return event.update_id  # type: ignore[attr-defined, no-any-return]  # by its row
    return event_us


def event_key(event: Event, values: Sequence[str]) -> tuple[str, ...]:
    """The key that identifies a message without a number in its stream.

    `values`: the entry's (`entry.encode`); the key of a stored entry is made the same way. A fill's
    key is its trade: the same fill received and fetched over REST is one. The key of the bridge's
    own entries is their fields: of an account snapshot with its time of receipt, of a gap and its
    record in the gap log without. A gap is the same interval whatever message shows its end: live
    that may be another message, or of another stream, than in the journal.

    The key of any other message is all its values except the time of sending, and its `occurrence`.
    It must not depend on which fields a version of the contract names: two bridges of two versions,
    and a bridge after an upgrade, must recognise a message in the stream. So a field counts by its
    letter and its text, null and absent are equal, a number counts as its digits. A value that this
    version does not name counts without its name: in a message that is the exchange's letter, in an
    entry of a later version that version's column. (A value that an earlier version did not name is
    a field again once its entry is decoded.)
    """
    extra = event.__pydantic_extra__
    plan = _PLANS.get(event.__class__)
    if plan is None or extra or values[0] == "orderFill":
        return _other_key(event, values, extra or {})
    return plan.whole_key(values)


def usual_key(model: type[Event], values: Sequence[str]) -> tuple[str, ...]:
    """`event_key` of an exchange event that has only the fields of its model."""
    return _PLANS[model].whole_key(values)


def repeated(key: tuple[str, ...], occurrence: int) -> tuple[str, ...]:
    """The key of a message after so many of equal content on its connection."""
    return (*key, str(occurrence)) if occurrence else key


def _other_key(event: Event, values: Sequence[str], extra: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(event, OrderUpdate) and event.type == "orderFill" and event.trade_id is not None:
        return ("orderFill", event.symbol, str(event.trade_id), event.order_id)
    if isinstance(event, Own):
        return tuple(values[:-4] if isinstance(event, Gap | GapRecord) else values)
    plan = _plan(event.__class__)
    unnamed = [text for value in extra.values() if (text := _text(value))]
    # a JSON array, so that it cannot be confused with an occurrence
    more = (_compact(sorted(unnamed)),) if unnamed else ()
    place = plan.occurrence
    occurrence = (values[place],) if place is not None and values[place] else ()
    return (*plan.key(plan.take(values)), *more, *occurrence)


class _Plan:
    """How the key of a model's events is made.

    `take` returns the texts of the exchange's fields from an entry's values, ordered by their names
    on the wire.
    """

    FORMS = 1024  # cached sets of present fields; there are a few for each event name

    def __init__(self, model: type[Event]) -> None:
        fields = model.model_fields
        places = {
            _wire_name(name, field): place
            for place, (name, field) in enumerate(fields.items())
            if name not in _NOT_CONTENT and not _is_ours(field)
        }
        self.occurrence = list(fields).index("occurrence") if "occurrence" in fields else None
        self._names = tuple(sorted(places))
        self.take = _getter([places[name] for name in self._names])
        self.names = _compact(self._names)
        self._forms: dict[tuple[bool, ...], tuple[str, Callable[..., tuple[str, ...]]]] = {}

    def whole_key(self, values: Sequence[str]) -> tuple[str, ...]:
        """The key of an entry with these values and an empty `extra`."""
        texts, place = self.take(values), self.occurrence
        key = self.key(texts) if "" in texts else (self.names, *texts)
        return (*key, values[place]) if place is not None and values[place] else key

    def key(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """The names that have a text, as one string, and their texts."""
        present = tuple(map(bool, texts))
        form = self._forms.get(present)
        if form is None:
            if len(self._forms) == self.FORMS:
                self._forms.clear()
            places = [place for place, is_there in enumerate(present) if is_there]
            names = _compact([self._names[place] for place in places])
            form = self._forms[present] = names, _getter(places)
        return (form[0], *form[1](texts))


_NOT_CONTENT = ("event_us", "received_us")  # `occurrence` and `source` are ours by their names
_compact = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def _text(value: object) -> str:
    """A JSON value as the text of a field in an entry."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return plain_decimal(repr(value))
    return _compact(value)  # `true`, digits, or the array or object itself


def _getter(places: Sequence[int]) -> Callable[[Sequence[str]], tuple[str, ...]]:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[place] for place in places)


def _wire_name(name: str, field: FieldInfo) -> str:
    return field.validation_alias if isinstance(field.validation_alias, str) else name


def _is_ours(field: FieldInfo) -> bool:
    return isinstance(field.validation_alias, str) and field.validation_alias.startswith(OURS)


@cache
def _plan(model: type[Event]) -> _Plan:
    return _Plan(model)


_PLANS = {
    model: _plan(model)
    for spec in STREAM_SPECS.values()
    if spec.identity is not Identity.SEQUENCED
    for model in (spec.model, UnknownEvent)
}


def content_seq(moment_us: int) -> int:
    """The sequence of a message without a number: up to 1,000 entries in each microsecond."""
    return moment_us % 1000 * 1000
