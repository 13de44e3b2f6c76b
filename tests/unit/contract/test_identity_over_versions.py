"""The key of a message without a number is equal for all versions of the contract."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract import entry, events
from bridge.contract.causes import GapCause
from bridge.contract.entry import decode_as, decode_within, encode, field_names
from bridge.contract.entry_form import EntryForm
from bridge.contract.events import Event
from bridge.contract.identity import event_key, repeated
from bridge.contract.stream_types import STREAM_SPECS, Identity, StreamType
from bridge.core.translate import Rejected, translate_by
from bridge.protocol.envelope import Data, parse
from tests.support.earlier_bridge import without
from tests.support.examples import examples

NOW_US = 1_790_915_531_030_000
OURS = {"type", "event_us", "received_us", "occurrence", "source"}
WITHOUT_NUMBER = [
    spec.model for spec in STREAM_SPECS.values() if spec.identity is not Identity.SEQUENCED
]

decimals = st.from_regex(r"\A(0|[1-9][0-9]{0,12})(\.[0-9]{1,18})?\Z", fullmatch=True)
fractions = st.from_regex(r"\A(0|[1-9][0-9]{0,5})\.[0-9]{1,25}(e-?[1-2]?[0-9])?\Z", fullmatch=True)
wholes = st.integers(0, 2**64 - 1)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


class Number(str):
    """The digits of a JSON number."""


unknown_fields = st.dictionaries(
    st.text("éxyz_0", min_size=3, max_size=5),
    st.none() | st.booleans() | wholes | words | fractions.map(Number),
    max_size=2,
)


def dumped(payload: Mapping[str, object]) -> str:
    """The text of a frame; a `Number` keeps its digits."""
    parts = (
        f"{json.dumps(name)}:{value if isinstance(value, Number) else json.dumps(value)}"
        for name, value in payload.items()
    )
    return '{"stream":"x","data":{' + ",".join(parts) + "}}"


def read(model: type[Event], payload: Mapping[str, object]) -> Event:
    frame = dumped(payload)
    data = parse(frame)
    assert isinstance(data, Data), (data, frame)
    event = translate_by(model, data, frame, NOW_US)
    assert not isinstance(event, Rejected), event
    return event


def key(event: Event) -> tuple[str, ...]:
    return event_key(event, encode(event))


def key_of_stored(event: Event, by: type[Event] | None = None) -> tuple[str, ...]:
    """The key of the event's entry when it is read with the model `by` (default: its own)."""
    stored = decode_as(by or type(event), fields_of(event))
    return event_key(stored, encode(stored))


def fields_of(event: Event) -> dict[str, str]:
    return dict(zip(field_names(type(event)), encode(event), strict=True))


def letter(model: type[Event], name: str) -> str:
    alias = model.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else name


@cache
def earlier(model: type[Event], field: str) -> type[Event]:
    """The model of an earlier version without this field, registered with the contract."""
    made = without(model, field)
    entry._FORMS[made] = EntryForm.of(made)
    return made


@cache
def values_of(model: type[Event], name: str) -> st.SearchStrategy[Any]:
    """Values that the exchange may send for this field, in every accepted spelling."""
    hint = events_hint(model, name)
    if hint is bool:
        return st.booleans()
    if hint is int:
        return wholes | wholes.map(str)
    if isinstance(hint, tuple):
        return st.sampled_from(hint)
    if name.endswith("_utc"):
        return st.just("2026-11-29T02:03:00")
    if hint == "decimal":
        return decimals | (fractions.map(Number) if model.numbers_as_text else st.nothing())
    return words | wholes if hint == "id" else words


@cache
def events_hint(model: type[Event], name: str) -> Any:
    """The kind of this field: a type, its allowed values, `decimal`, `id` or `text`."""
    schema = model.model_json_schema(by_alias=False)["properties"][name]
    kinds = schema.get("anyOf", [schema])
    first = next(kind for kind in kinds if kind.get("type") != "null")
    if "$ref" in first or "enum" in first:
        return tuple(first["enum"])
    if "const" in first:
        return (first["const"],)
    if first.get("type") in ("boolean", "integer"):
        return {"boolean": bool, "integer": int}[first["type"]]
    if "pattern" in first and not name.endswith("_utc"):
        return "decimal"
    is_id = "id" in name.split("_") and name != "trade_id"
    return "id" if is_id else "text"


@st.composite
def messages(draw: st.DrawFn, model: type[Event]) -> dict[str, object]:
    payload: dict[str, object] = {}
    for name, field in model.model_fields.items():
        alias = letter(model, name)
        if alias.startswith("bridge:") or name == "received_us":
            continue
        if not field.is_required() and draw(st.booleans()):
            continue
        if name == "type":
            payload[alias] = draw(values_of(model, name).filter(lambda name: name != "orderFill"))
        elif type(None) in getattr(field.annotation, "__args__", ()) and draw(st.booleans()):
            payload[alias] = None
        else:
            payload[alias] = draw(values_of(model, name))
    return {**draw(unknown_fields), **payload}


@pytest.mark.parametrize("model", WITHOUT_NUMBER, ids=lambda model: model.__name__)
@examples(3)
@given(data=st.data())
def test_a_stored_entry_has_the_key_of_its_message(model: type[Event], data: st.DataObject) -> None:
    event = read(model, data.draw(messages(model)))

    assert key_of_stored(event) == key(event)


@pytest.mark.parametrize(
    ("model", "name"),
    [(model, name) for model in WITHOUT_NUMBER for name in model.model_fields if name not in OURS],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
@examples(1)
@given(data=st.data())
def test_each_version_recognises_a_message_that_any_version_wrote(
    model: type[Event], name: str, data: st.DataObject
) -> None:
    payload = data.draw(messages(model))
    before = earlier(model, name)

    old, new = read(before, payload), read(model, payload)

    assert key(old) == key_of_stored(old) == key_of_stored(new, before)
    assert key(new) == key_of_stored(new) == key_of_stored(old, model)


def test_null_absent_and_empty_values_have_one_key() -> None:
    frame = {"e": "balanceUpdate", "a": "SOL", "A": "1", "L": "0", "S": "0", "E": 1, "T": 2}

    keys = {
        key(read(events.BalanceUpdate, frame | more)) for more in ({}, {"s": None}, {"new": None})
    }

    assert len(keys) == 1


def test_another_value_of_an_unnamed_field_is_another_message() -> None:
    frame = {"e": "balanceUpdate", "a": "SOL", "A": "1", "L": "0", "S": "0", "E": 1, "T": 2}

    keys = {
        key(read(events.BalanceUpdate, frame | more))
        for more in ({}, {"x": 1}, {"x": 2}, {"x": True}, {"x": [1]}, {"x": {"y": 1}})
    }

    assert len(keys) == 6


def test_a_value_moved_to_another_field_is_another_message() -> None:
    frame = {"e": "orderAccepted", "s": "X", "i": "9", "S": "Bid", "o": None, "X": None,
             "E": 1, "T": 2}  # fmt: skip

    keys = {key(read(events.OrderUpdate, frame | {name: "1"})) for name in ("p", "q", "Q", "new")}

    assert len(keys) == 4


def test_an_occurrence_is_part_of_the_key() -> None:
    frame = {"e": "liquidation", "s": "X", "S": "Ask", "p": "1", "q": "2", "E": 1, "T": 2}
    first = read(events.Liquidation, frame)
    second = first.model_copy(update={"occurrence": 1})

    assert key(second) == key_of_stored(second) == repeated(key(first), 1) != key(first)


def test_a_field_of_the_exchange_named_as_one_of_ours_stays_its_own() -> None:
    frame = {"e": "orderAccepted", "s": "X", "i": "9", "S": "Bid", "o": None, "X": None,
             "E": 1, "T": 2, "source": "web", "occurrence": 7}  # fmt: skip
    event = read(events.OrderUpdate, frame)

    assert isinstance(event, events.OrderUpdate)
    assert (event.source, event.occurrence) == (None, None)
    assert event.extra == {"source": "web", "occurrence": 7}
    assert key(event) == key_of_stored(event)


RFQS = STREAM_SPECS[StreamType.RFQ_UPDATE]
RFQ_EVENT = {"e": "rfqCancelRequested", "R": 113392053149171712, "s": "X_RFQ", "p": "15.5",
             "X": "New", "w": None, "E": 1, "T": 2}  # fmt: skip


def test_an_event_that_an_earlier_version_did_not_know_has_the_key_of_its_message() -> None:
    before, after = read(events.UnknownEvent, RFQ_EVENT), read(events.RfqUpdate, RFQ_EVENT)
    stored = decode_within(RFQS, fields_of(before))

    assert stored == after
    assert event_key(stored, encode(stored)) == key(after)


def test_an_event_that_only_a_later_version_knows_has_the_key_of_its_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, after = read(events.UnknownEvent, RFQ_EVENT), read(events.RfqUpdate, RFQ_EVENT)
    monkeypatch.setitem(RFQS.__dict__, "event_names", frozenset())  # as in an earlier version
    stored = decode_within(RFQS, fields_of(after))

    assert isinstance(stored, events.UnknownEvent)
    assert event_key(stored, encode(stored)) == key(before)


def test_own_entries_of_an_account_stream_are_read_as_such() -> None:
    gap = events.Gap(cause=GapCause.STALE, from_us=1, to_us=2, received_us=3)

    assert decode_within(RFQS, fields_of(gap)) == gap
