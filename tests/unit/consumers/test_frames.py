"""Entries as tables for pandas and polars: columns, types, and values that do not fit."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from bridge.contract.entry import MODELS, decode
from bridge.contract.events import Depth, Event, Gap, Trade
from bridge.errors import ConfigError
from consumers.kit.reading.columns import (
    Column,
    ColumnKind,
    columns_of,
    columns_of_models,
    row_of,
)
from consumers.kit.reading.frames import Decimals, pandas_frame, polars_frame
from tests.support.consumer_entries import (
    START_US,
    Fields,
    depth,
    entry_id,
    gap,
    order_update,
    trade,
)

TRADES = columns_of("trade.SOL_USDC")


def rows(*entries: Fields, columns: tuple[Column, ...] = TRADES) -> list[tuple[Any, ...]]:
    return [
        row_of(columns, entry_id(START_US, n, f["type"] == "gap"), decode(f))
        for n, f in enumerate(entries, 1)
    ]


def as_dicts(*entries: Fields, columns: tuple[Column, ...] = TRADES) -> list[dict[str, Any]]:
    names = [column.name for column in columns]
    return [dict(zip(names, one, strict=True)) for one in rows(*entries, columns=columns)]


def test_a_stream_of_trades_has_the_columns_of_trades_and_gaps() -> None:
    assert [(column.name, column.kind) for column in TRADES] == [
        ("entry_id", ColumnKind.TEXT),
        ("time", ColumnKind.MOMENT),
        ("type", ColumnKind.TEXT),
        ("symbol", ColumnKind.TEXT),
        ("price", ColumnKind.DECIMAL),
        ("quantity", ColumnKind.DECIMAL),
        ("trade_id", ColumnKind.WHOLE),
        ("buyer_order_id", ColumnKind.TEXT),
        ("seller_order_id", ColumnKind.TEXT),
        ("buyer_is_maker", ColumnKind.FLAG),
        ("source", ColumnKind.TEXT),
        ("from", ColumnKind.WHOLE),
        ("to", ColumnKind.WHOLE),
        ("from_at", ColumnKind.MOMENT),
        ("to_at", ColumnKind.MOMENT),
        ("cause", ColumnKind.TEXT),
        ("recovered", ColumnKind.FLAG),
        ("occurrence", ColumnKind.WHOLE),
        ("event_at", ColumnKind.MOMENT),
        ("engine_at", ColumnKind.MOMENT),
        ("received_at", ColumnKind.MOMENT),
        ("extra", ColumnKind.JSON),
    ]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_of_the_contract_has_a_column(model: type[Event]) -> None:
    covered = {column.field for column in columns_of_models((model,))}
    assert set(model.model_fields) <= covered


def test_each_row_shows_the_fields_of_its_entry() -> None:
    found = as_dicts(trade(1, START_US, "98.960"), gap(9, first=2))
    assert found[0]["entry_id"] == "1788367440000-10"
    assert found[0]["time"] == START_US
    assert (found[0]["price"], found[0]["trade_id"], found[0]["cause"]) == ("98.960", 1, None)
    assert (found[1]["type"], found[1]["from"], found[1]["to"]) == ("gap", 2, 9)
    assert (found[1]["price"], found[1]["recovered"]) == (None, False)


def test_values_that_do_not_fit_their_column_are_in_extra() -> None:
    beyond = trade(2**63, START_US) | {"engine_us": str(2**64 - 1), "extra": '{"new": [1]}'}
    [found] = as_dicts(beyond)
    assert (found["trade_id"], found["engine_at"]) == (None, None)
    assert json.loads(found["extra"]) == {
        "trade_id": 2**63,
        "engine_us": 2**64 - 1,
        "new": [1],
    }
    [stranger] = as_dicts(order_update("orderAccepted", "7", "New"))
    assert json.loads(stranger["extra"])["order_id"] == "7"


def test_times_of_every_unit_become_moments() -> None:
    kline = {
        "type": "kline",
        "symbol": "SOL_USDC",
        "start_utc": "2026-09-02T16:44:00",
        "end_utc": "2026-13-02T16:45:00",
        "open_price": "",
        "high_price": "",
        "low_price": "",
        "close_price": "",
        "base_volume": "",
        "trades": "0",
        "closed": "false",
        "event_us": str(START_US),
        "engine_us": "",
        "received_us": str(START_US),
        "extra": "",
    }
    [found] = as_dicts(kline, columns=columns_of("kline.1m.SOL_USDC"))
    assert (found["start_at"], found["end_at"]) == (START_US, None)
    assert json.loads(found["extra"]) == {"end_utc": "2026-13-02T16:45:00"}


NUMBERS: list[tuple[Decimals, object]] = [
    ("text", "98.960"),
    ("float", 98.96),
    ("decimal", Decimal("98.960")),
]


@pytest.mark.parametrize(("decimals", "price"), NUMBERS)
def test_pandas_frames_have_times_nulls_and_the_chosen_decimals(
    decimals: Decimals, price: object
) -> None:
    frame = pandas_frame(TRADES, rows(trade(2**53 + 1, START_US, "98.960"), gap(9)), decimals)
    assert frame["price"][0] == price
    assert frame["price"].isna().tolist() == [False, True]
    assert frame["trade_id"][0] == 2**53 + 1
    assert frame["buyer_is_maker"].tolist()[0] is True
    assert frame["engine_at"][0].to_pydatetime() == datetime(2026, 9, 2, 16, 44, tzinfo=UTC)
    assert frame["engine_at"].isna().tolist() == [False, True]
    assert (frame["received_at"] - frame["engine_at"])[0].total_seconds() == 0.09


@pytest.mark.parametrize(("decimals", "price"), NUMBERS)
def test_polars_frames_have_times_nulls_and_the_chosen_decimals(
    decimals: Decimals, price: object
) -> None:
    frame = polars_frame(TRADES, rows(trade(2**53 + 1, START_US, "98.960"), gap(9)), decimals)
    assert frame["price"].to_list() == [price, None]
    assert frame["trade_id"].to_list() == [2**53 + 1, None]
    assert frame["engine_at"].to_list() == [datetime(2026, 9, 2, 16, 44, tzinfo=UTC), None]
    assert frame["recovered"].to_list() == [None, False]


def test_levels_are_lists_of_pairs_and_empty_frames_have_all_columns() -> None:
    columns = columns_of_models((Depth,))
    given = rows(depth(1, 2, [("99.0", "5")], []), columns=columns)
    assert polars_frame(columns, given, "text")["bids"].to_list() == [[["99.0", "5"]]]
    assert pandas_frame(columns, given, "text")["bids"][0] == [["99.0", "5"]]
    for frame in (polars_frame(TRADES, [], "float"), pandas_frame(TRADES, [], "float")):
        assert list(frame.columns) == [column.name for column in TRADES]
        assert len(frame) == 0


def test_a_frame_of_one_class_has_its_columns_only() -> None:
    assert "cause" not in [column.name for column in columns_of_models((Trade,))]
    assert "price" not in [column.name for column in columns_of_models((Gap,))]


def test_exact_decimals_keep_every_digit() -> None:
    given = rows(trade(1, START_US, "0.0000000000000000000000000001"), trade(2, START_US, "98.96"))
    exact = [Decimal("0.0000000000000000000000000001"), Decimal("98.96")]
    assert polars_frame(TRADES, given, "decimal")["price"].to_list() == exact
    assert pandas_frame(TRADES, given, "decimal")["price"].to_list() == exact


def test_an_unknown_kind_of_decimals_is_refused() -> None:
    with pytest.raises(ConfigError, match="write text, float or decimal"):
        pandas_frame(TRADES, [], "floats")  # type: ignore[arg-type]
