"""REST bodies as the exchange writes them."""

import pytest

from bridge.protocol.rest import (
    BadBody,
    balances_rows,
    depth_body,
    orders_rows,
    positions_rows,
    row_count,
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
def test_a_body_that_is_something_else_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(BadBody, match="depth"):
        depth_body(body)


def test_text_where_json_is_expected_is_refused_in_words() -> None:
    for read in (orders_rows, positions_rows, balances_rows):
        with pytest.raises(BadBody):
            read(b"upstream timeout")


def test_rows_of_a_page_are_counted() -> None:
    assert row_count(b'[{"id":1},{"id":2}]') == 2


@pytest.mark.parametrize("page", [b"<html>", b"7", b"null", b"[" * 100_000 + b"]" * 100_000])
def test_a_page_that_is_none_is_not_counted(page: bytes) -> None:
    with pytest.raises(BadBody, match="page"):
        row_count(page)
