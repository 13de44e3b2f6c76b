"""Each stream type has one row in the table, and no other module names single types."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bridge
from bridge.contract.entry import MODEL_BY_TYPE
from bridge.contract.fields import OURS
from bridge.contract.stream_types import (
    STREAM_SPECS,
    Identity,
    Listing,
    Recovery,
    Staleness,
    StreamType,
)
from bridge.contract.streams import parse_stream

ROOT = Path(bridge.__file__).parent

# Each file that may name a single type, and the reason.
MAY_NAME_A_TYPE = {
    "console/market.py": "the page of a market shows its book, trades, best prices and candles",
    "contract/stream_types.py": "the rows themselves",
    "contract/streams.py": "the bridge's own streams are of an exchange type's identity",
    "feed/feed.py": "the exchange names liquidations in two ways, and refuses one of them",
    "feed/plan.py": "the exchange names liquidations in two ways, and refuses one of them",
    "inspect/book_at.py": "the streams that may have a market's book",
    "inspect/comparison.py": "the chain of a book's changes tells what a window covers",
    "inspect/continuity.py": "a book is followed in depth streams only",
    "inspect/journal_stream.py": "REST is requested for the history of trades",
}
# Each file that may have the name of a type as text, and the reason.
MAY_SPELL_A_TYPE = {
    "contract/events.py": "what the field `type` says",
    "contract/schema.py": "the placeholder of a stock's ticker",
    "contract/stream_types.py": "the rows themselves",
    "core/old_numbers.py": "what the field `type` of entries with numbers says",
    "protocol/rest.py": "what the field `type` of a row of history says",
    "runtime/config.py": "settings of depth snapshots bound the retention of depth",
    "view/history.py": "what the field `type` says of entries whose latency is measured",
    "inspect/book_at.py": "what the field `type` says of a change of the book",
    "inspect/life.py": "what the field `type` says of a change of the book",
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def test_every_stream_type_has_a_row() -> None:
    assert set(STREAM_SPECS) == set(StreamType)
    assert all(spec.stream_type is kind for kind, spec in STREAM_SPECS.items())


@pytest.mark.parametrize("kind", StreamType)
def test_a_row_of_the_table_is_consistent(kind: StreamType) -> None:
    spec = STREAM_SPECS[kind]
    assert spec.means.endswith(".")
    assert spec.retention_entries > 0
    assert spec.bytes_per_entry > 0
    assert (spec.staleness is not Staleness.PERIOD) or spec.period_s
    assert spec.has_engine_time or spec.period_s, "samples need a period"
    assert not spec.default_form or parse_stream(f"{spec.default_form}.SOL_USDC").type is kind
    assert not spec.default_form or spec.listing is not Listing.NONE
    for source in spec.rest:
        assert source.path.startswith(("/api/", "/wapi/"))
        assert bool(source.instruction) == spec.is_private
        assert (source.snapshot is not None) == (source.recovery is Recovery.SNAPSHOT)


@pytest.mark.parametrize("kind", StreamType)
def test_a_model_s_fields_stand_where_readers_expect_them(kind: StreamType) -> None:
    """`type` and `symbol` first, `occurrence` directly before the three times."""
    names = list(STREAM_SPECS[kind].model.model_fields)
    assert names[:2] == ["type", "symbol"]
    assert names[-3:] == ["event_us", "engine_us", "received_us"]
    assert "occurrence" not in names[:-4]
    assert (names[-4] == "occurrence") == (STREAM_SPECS[kind].identity is Identity.EVENTS)


@pytest.mark.parametrize("kind", StreamType)
def test_fields_of_the_bridge_have_names_that_the_exchange_cannot_send(
    kind: StreamType,
) -> None:
    fields = STREAM_SPECS[kind].model.model_fields
    filled = {
        name: fields[name].validation_alias for name in ("occurrence", "source") if name in fields
    }
    assert filled == {name: OURS + name for name in filled}


def test_every_model_of_a_stream_type_is_recognised_by_its_entry_type() -> None:
    models = set(MODEL_BY_TYPE.values())
    assert {spec.model for spec in STREAM_SPECS.values()} < models
    assert {spec.snapshot for spec in STREAM_SPECS.values() if spec.snapshot} < models


def test_no_other_module_names_a_member_of_stream_type() -> None:
    found = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "StreamType"
        and node.attr in StreamType.__members__
    }
    advice = (
        "what differs by type is a field of StreamSpec; else give the reason in MAY_NAME_A_TYPE"
    )
    assert found == set(MAY_NAME_A_TYPE), advice


def test_no_other_module_has_the_name_of_a_stream_type_as_text() -> None:
    spelled = {kind.value for kind in StreamType}
    found = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.removesuffix(".") in spelled
    }
    assert found == set(MAY_SPELL_A_TYPE)
