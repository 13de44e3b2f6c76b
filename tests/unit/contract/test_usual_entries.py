"""The fast path for usual entries returns the same event as the full path, or no event."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.entry import (
    MODEL_BY_TYPE,
    MODELS,
    BadEntry,
    _read_any,
    decode,
    decode_flat_as,
    encode,
    field_names,
)
from bridge.contract.entry_form import EntryForm
from bridge.contract.events import Event, Trade
from tests.support.examples import examples

FORMS = {model: EntryForm.of(model) for model in MODELS}
# Always read by the full path: JSON rows, and gaps, whose cause may be of a later version.
WITHOUT = {"OrdersSnapshot", "PositionsSnapshot", "BalancesSnapshot", "Gap", "GapRecord"}
TYPES = [name for name, model in MODEL_BY_TYPE.items() if model.__name__ not in WITHOUT]

CANDIDATES = ("1.5", "Bid", "2026-11-29T02:03:00", "SOL_USDC")
# Texts that are usual for some field, and texts on which parsers differ.
VALUES = [
    "", "0", "7", "1.5", "-1.5", "true", "false", "Bid", "rest", "SOL_USDC", "stale", "5m",
    "00", "0" * 20, "0" * 21, "18446744073709551615", "18446744073709551616", "9" * 21,
    "1_0", " 1", "1 ", "+1", "-1", "1e3", "0x1", "٣", "²", "1.", ".5", "NaN", "Infinity",
    "1" * 65, "x" * 129, "None", "null", "\ud800", "é\x00", "True", "1\n",
    "[]", "[[]]", "{}", "null", '"x"', '[["1","2"]]', ' [["1","2"]]\n', '[["1","2"],]',
    '[["1",2]]', '[["1","2","3"]]', '[["1",NaN]]', '[["\\ud800","1"]]', '[["1","1"]',
    "[" * 5000, '[{"a":1.5}]', '[["1","-2"]]', '[["01","2.50"]]', '[["1\\u0030","2"]]',
    '[["1","2"]]x', '\ufeff[["1","2"]]', '[["1","2\x00"]]',
]  # fmt: skip


def usual(kind: str) -> dict[str, str]:
    """A valid entry of this type as a bridge writes it."""
    model = MODEL_BY_TYPE[kind]
    form = FORMS[model]
    entry = dict.fromkeys(form.names, "")
    for name in form.names[:-1]:
        if name in form.whole:
            entry[name] = "1700000000000300"
        elif name in form.flags:
            entry[name] = "true"
        elif name in form.lists:
            entry[name] = '[["99.01","1.50"],["98","0"]]'
    entry["type"] = kind
    while (event := judged(model, entry)) is None:
        wrong = faults(model, entry)
        at = CANDIDATES.index(entry[wrong]) + 1 if entry[wrong] else 0
        entry[wrong] = CANDIDATES[at]
    assert dict(zip(form.names, encode(event), strict=True)) == entry
    return entry


def judged(model: type[Event], entry: dict[str, str]) -> Event | None:
    try:
        return _read_any(model, entry)
    except BadEntry:
        return None


def faults(model: type[Event], entry: dict[str, str]) -> str:
    """The name of the first invalid field."""
    with pytest.raises(BadEntry) as refusal:
        _read_any(model, entry)
    return str(refusal.value).partition(" entry: ")[2].partition(":")[0]


def all_of(event: Event) -> tuple[Any, ...]:
    """The event's class, all its values with their classes, and pydantic's attributes."""
    values = [(name, type(value), value) for name, value in vars(event).items()]
    return type(event), values, event.__pydantic_extra__, event.model_fields_set


def read_usual(model: type[Event], entry: dict[str, str]) -> Event | None:
    return FORMS[model].read_usual([*entry], entry.values())


def flat(entry: dict[str, str]) -> list[str]:
    """The entry's names and values in one list, as Redis replies."""
    return [text for pair in entry.items() for text in pair]


def as_sent(model: type[Event], entry: list[str]) -> Event | None:
    try:
        return decode_flat_as(model, entry)
    except BadEntry:
        return None


def assert_read_alike(model: type[Event], entry: dict[str, str]) -> None:
    found, sent = read_usual(model, entry), as_sent(model, flat(entry))
    by_the_judge = judged(model, entry)
    assert (sent is None) == (by_the_judge is None), entry
    for one in (found, sent):
        if one is not None:
            assert by_the_judge is not None, entry
            assert all_of(one) == all_of(by_the_judge)


@pytest.mark.parametrize("kind", TYPES)
def test_what_a_bridge_writes_is_usual(kind: str) -> None:
    entry = usual(kind)
    assert read_usual(MODEL_BY_TYPE[kind], entry) is not None
    assert_read_alike(MODEL_BY_TYPE[kind], entry)


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_a_form_with_other_values_has_no_usual_reader(name: str) -> None:
    [model] = [one for one in MODELS if one.__name__ == name]
    assert read_usual(model, dict.fromkeys(field_names(model), "1")) is None


@pytest.mark.parametrize("kind", TYPES)
@examples(3)
@given(data=st.data())
def test_an_entry_with_any_other_value_is_read_alike(kind: str, data: st.DataObject) -> None:
    entry = usual(kind)
    for name in data.draw(st.lists(st.sampled_from(sorted(entry)), min_size=1, max_size=3)):
        entry[name] = data.draw(st.sampled_from(VALUES) | st.text(max_size=30), label=name)
    assert_read_alike(MODEL_BY_TYPE[kind], entry)


@pytest.mark.parametrize("kind", TYPES)
def test_each_value_in_each_place_is_read_alike(kind: str) -> None:
    whole = usual(kind)
    for name in whole:
        for text in VALUES:
            assert_read_alike(MODEL_BY_TYPE[kind], {**whole, name: text})


@pytest.mark.parametrize("kind", TYPES)
def test_columns_that_are_missing_added_or_in_another_order_are_not_usual(kind: str) -> None:
    entry, model = usual(kind), MODEL_BY_TYPE[kind]
    columns = list(entry.items())
    for at in range(len(columns) - 1):
        swapped = [*columns[:at], columns[at + 1], columns[at], *columns[at + 2 :]]
        assert read_usual(model, dict(swapped)) is None
        assert read_usual(model, dict([*columns[:at], *columns[at + 1 :]])) is None
    for more in ({"new": "1"}, {"extra": '{"x":1}'}):
        assert read_usual(model, entry | more) is None


@pytest.mark.parametrize("kind", TYPES)
def test_the_last_of_repeated_columns_counts(kind: str) -> None:
    entry, model = usual(kind), MODEL_BY_TYPE[kind]
    for name in entry:
        for text in ("7", "x", ""):
            sent = as_sent(model, [name, text, *flat(entry)])
            assert sent is not None
            assert sent == judged(model, entry)
            twice = as_sent(model, [*flat(entry), name, text])
            assert twice == judged(model, {**entry, name: text})


def test_events_share_no_objects_and_behave_like_those_of_pydantic() -> None:
    entry = usual("trade")
    one, two = decode(entry), decode(entry)
    assert isinstance(one, Trade)
    assert one == two
    assert hash(one) == hash(two)
    assert one.model_fields_set is not two.model_fields_set
    assert one.__pydantic_extra__ is not two.__pydantic_extra__
    assert repr(one) == repr(judged(Trade, entry))
    assert one.model_dump_json() == two.model_dump_json()
    for copied in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert all_of(copied) == all_of(one)
    assert one.model_copy(update={"price": "1"}).price == "1"
    with pytest.raises(ValueError, match="frozen"):
        one.price = "2"
