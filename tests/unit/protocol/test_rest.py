"""Parsing of the exchange's REST bodies."""

import pytest

from bridge.protocol.rest import (
    BadBody,
    balances_rows,
    depth_body,
    fills_page,
    orders_rows,
    positions_rows,
    row_count,
    trades_page,
)

DEPTH = b'{"asks":[["86781.5","5.54115"],["86783.3","1.22656"]],"bids":[["86777.7","0.03571"],["86781.4","2.20229"]],"lastUpdateId":"6904864764","timestamp":1790915412979224}'  # noqa: E501


def test_a_depth_body_names_the_update_it_is_at() -> None:
    body = depth_body(DEPTH)

    assert body.last_update_id == 6904864764
    assert body.bids == [("86777.7", "0.03571"), ("86781.4", "2.20229")]
    assert body.asks[0] == ("86781.5", "5.54115")


def test_rows_of_the_account_take_the_contracts_names_and_keep_the_rest() -> None:
    orders = orders_rows(b'[{"id":"5","symbol":"SOL_USDC","executedQuantity":"0","mood":"x"}]')
    positions = positions_rows(b'[{"symbol":"SOL_USDC_PERP","netQuantity":"-1","imf":"0.02"}]')
    balances = balances_rows(b'{"USDC":{"available":"1","locked":"0","staked":"0"},"SOL":{}}')

    assert orders == [
        {"order_id": "5", "symbol": "SOL_USDC", "executed_quantity": "0", "mood": "x"}
    ]
    assert positions == [
        {"symbol": "SOL_USDC_PERP", "net_quantity": "-1", "initial_margin_fraction": "0.02"}
    ]
    assert balances == [
        {"asset": "SOL"},
        {"asset": "USDC", "available": "1", "locked": "0", "staked": "0"},
    ]


@pytest.mark.parametrize("body", [b"", b"not found", b"[]", b'{"asks":[]}', b"\xff"])
def test_a_body_of_another_form_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(BadBody, match="depth"):
        depth_body(body)


def test_text_where_json_is_expected_is_refused_with_a_reason() -> None:
    for read in (orders_rows, positions_rows, balances_rows):
        with pytest.raises(BadBody):
            read(b"upstream timeout")


def test_rows_of_a_page_are_counted() -> None:
    assert row_count(b'[{"id":1},{"id":2}]') == 2


@pytest.mark.parametrize("page", [b"<html>", b"7", b"null", b"[" * 100_000 + b"]" * 100_000])
def test_a_body_that_is_no_page_is_refused(page: bytes) -> None:
    with pytest.raises(BadBody, match="page"):
        row_count(page)


TRADE = '{"id":1,"isBuyerMaker":true,"price":"1","quantity":"1","timestamp":%s}'
FILL = (
    '{"symbol":"A","orderId":"1","tradeId":1,"side":"Bid","price":"1","quantity":"1","fee":"0",'
    '"feeSymbol":"U","isMaker":true,"timestamp":%s}'
)


@pytest.mark.parametrize("moment", ["18446744073709551615", "1e999", "NaN", "-1"])
def test_a_page_of_trades_with_a_time_that_no_event_can_have_is_refused(moment: str) -> None:
    with pytest.raises(BadBody, match="trades"):
        trades_page("A", f"[{TRADE % moment}]".encode(), 1)


@pytest.mark.parametrize(
    "moment",
    ['"0001-01-01T00:00:00"', '"1969-12-31T23:59:59+01:00"', "-99999999999", "1e999", "NaN"],
)
def test_a_page_of_fills_with_a_time_that_no_event_can_have_is_refused(moment: str) -> None:
    with pytest.raises(BadBody, match="fills"):
        fills_page(f"[{FILL % moment}]".encode(), 1)


def test_a_page_of_more_rows_than_any_is_requested_is_refused() -> None:
    page = f"[{','.join([TRADE % 1] * 10_001)}]".encode()

    with pytest.raises(BadBody, match="at most 10000 items"):
        trades_page("A", page, 1)


def test_fractions_of_account_rows_keep_the_exchanges_own_digits() -> None:
    body = b'[{"price":0.1000000000000000055511151231257827,"mmf":1e-7,"imf":1e999,"quantity":3}]'

    assert positions_rows(body) == [
        {
            "price": "0.1000000000000000055511151231257827",
            "maintenance_margin_fraction": "0.0000001",
            "initial_margin_fraction": "1e999",
            "quantity": 3,
        }
    ]


@pytest.mark.parametrize("value", ["NaN", "-Infinity", '"\\ud800"', "9" * 5_000])
def test_account_rows_that_are_no_json_are_refused(value: str) -> None:
    with pytest.raises(BadBody, match="orders"):
        orders_rows(f'[{{"price":{value}}}]'.encode())
    with pytest.raises(BadBody, match="balances"):
        balances_rows(f'{{"SOL":{{"available":{value}}}}}'.encode())


def test_a_balance_has_the_asset_of_its_key() -> None:
    assert balances_rows(b'{"SOL":{"asset":"USDC","available":"1"}}') == [
        {"asset": "SOL", "available": "1"}
    ]
