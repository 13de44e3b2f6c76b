"""The published JSON schemas accept the entries that the bridge makes of real frames."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from bridge.contract import events
from bridge.contract.entry import encode, field_names
from bridge.contract.events import Event
from bridge.contract.schema import (
    MEANINGS,
    asyncapi_document,
    entries_document,
    entry_models,
    entry_schema,
    meaning,
    models_of,
)
from bridge.contract.streams import StreamType, parse_stream
from bridge.core.translate import Rejected, translate
from bridge.protocol.envelope import Data, parse
from tests.support import frames

HEARD_US = 1_790_915_531_030_000
FRAMES = {
    name: text
    for name, text in vars(frames).items()
    if isinstance(text, str) and text.startswith("{") and not name.startswith("ERROR")
}
OWN_EVENTS = [
    events.UnknownEvent(event="somethingNew", received_us=HEARD_US),
    events.DepthSnapshot(
        symbol="SOL_USDC", update_id=7, bids=[("98.9", "1")], asks=[], received_us=HEARD_US
    ),
    events.OrdersSnapshot(orders=[{"order_id": "1", "reduce_only": False}], received_us=HEARD_US),
    events.PositionsSnapshot(positions=[], received_us=HEARD_US),
    events.BalancesSnapshot(balances=[{"asset": "SOL", "available": "1"}], received_us=HEARD_US),
    events.Gap.model_validate(
        {"symbol": "SOL_USDC", "from": 3, "to": 6, "cause": "skipped", "received_us": HEARD_US}
    ),
    events.GapRecord.model_validate(
        {
            "stream": "trade.SOL_USDC",
            "from": 3,
            "to": 6,
            "cause": "skipped",
            "recovered": True,
            "how": "history",
            "received_us": HEARD_US,
        }
    ),
    events.Quarantined(reason="price: should be a string", raw="{…}", received_us=HEARD_US),
]


def entry(event: Event) -> dict[str, str]:
    return dict(zip(field_names(type(event)), encode(event), strict=True))


def translated(frame: str) -> Event:
    message = parse(frame)
    assert isinstance(message, Data)
    event = translate(parse_stream(message.stream), message, frame, HEARD_US)
    assert not isinstance(event, Rejected), event.reason
    return event


def faults(fields: Mapping[str, str]) -> list[str]:
    """All violations of the schema in an entry, including those inside its JSON strings."""
    document = entries_document()
    found = [error.message for error in Draft202012Validator(document).iter_errors(fields)]
    [model] = [m for m in entry_models() if fields["type"] in _types(m)]
    for name, schema in entry_schema(model)["properties"].items():
        for form in schema.get("anyOf", [schema]):
            if "contentSchema" in form and fields[name]:
                content = Draft202012Validator(form["contentSchema"])
                found += [e.message for e in content.iter_errors(json.loads(fields[name]))]
    return found


def _types(model: type[Event]) -> list[str]:
    types: list[str] = entry_schema(model)["properties"]["type"]["enum"]
    return types


def references(value: object) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key == "$ref":
                yield str(below)
            yield from references(below)
    elif isinstance(value, list):
        for below in value:
            yield from references(below)


def test_the_entries_document_is_valid_json_schema() -> None:
    Draft202012Validator.check_schema(entries_document())


@pytest.mark.parametrize("name", FRAMES)
def test_the_entry_of_a_real_frame_is_valid(name: str) -> None:
    assert faults(entry(translated(FRAMES[name]))) == []


@pytest.mark.parametrize("event", OWN_EVENTS, ids=lambda event: event.type)
def test_an_entry_of_the_bridges_own_is_valid(event: Event) -> None:
    assert faults(entry(event)) == []


def test_every_kind_of_entry_is_tried() -> None:
    tried = {type(translated(frame)) for frame in FRAMES.values()} | {type(e) for e in OWN_EVENTS}

    never_captured = {events.ExternalTicker, events.StockPrice, events.StockIndicativeQuote}
    advice = "add a frame of it to tests/support/frames.py"
    assert set(entry_models()) - tried == never_captured, advice


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", "8.66e4"),
        ("price", ""),
        ("price", "-1"),
        ("trade_id", "99419870.0"),
        ("buyer_is_maker", "False"),
        ("type", "trades"),
        ("extra", None),
    ],
)
def test_a_wrong_value_is_not_valid(field: str, value: str | None) -> None:
    assert faults_of_one(entry(translated(frames.TRADE)) | {field: value}) != []


def faults_of_one(fields: Mapping[str, Any]) -> list[str]:
    return [e.message for e in Draft202012Validator(entries_document()).iter_errors(fields)]


def test_an_entry_without_one_of_its_fields_is_not_valid() -> None:
    fields = entry(translated(frames.TRADE))
    del fields["extra"]

    assert faults_of_one(fields) != []


def test_a_wrong_level_inside_the_json_is_found() -> None:
    fields = entry(translated(frames.DEPTH)) | {"bids": '[["98.97",22.39]]'}

    assert faults(fields) == ["22.39 is not of type 'string'"]


def test_a_field_of_a_later_version_is_valid() -> None:
    assert faults(entry(translated(frames.TRADE)) | {"colour": "green"}) == []


@pytest.mark.parametrize("model", entry_models(), ids=lambda model: model.__name__)
def test_every_type_and_field_has_a_meaning(model: type[Event]) -> None:
    assert MEANINGS[model]
    assert all(meaning(model, attribute) for attribute in [*model.model_fields, "extra"])


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi_document()

    for reference in references(document):
        here: Any = document
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]
        assert here, reference


def test_every_address_is_the_name_of_a_stream() -> None:
    examples = {"symbol": "SOL_USDC", "ticker": "NVDA", "interval": "1m", "window": "200ms"}
    channels = [
        c for n, c in asyncapi_document()["channels"].items() if n not in ("gaps", "quarantine")
    ]

    kinds = {parse_stream(channel["address"].format(**examples)).type for channel in channels}

    assert kinds == set(StreamType)
    for channel in channels:
        kind = parse_stream(channel["address"].format(**examples)).type
        assert set(channel["messages"]) == {model.__name__ for model in models_of(kind)}
        named = set(channel.get("parameters", {}))
        assert all(f"{{{name}}}" in channel["address"] for name in named)
