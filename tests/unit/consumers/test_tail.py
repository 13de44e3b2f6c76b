"""The tail sample's lines."""

from consumers.handlers.tail import line
from tests.support.consumer_entries import START_US, delivery, depth, gap, trade


def test_a_trade_is_a_readable_line() -> None:
    assert line(delivery(trade(100, START_US + 1_500))) == (
        "16:44:00.001 trade.SOL_USDC trade price=98.96 quantity=1.5 trade_id=100 "
        "buyer_order_id=59887375336 seller_order_id=59887375337 buyer_is_maker=true"
    )


def test_levels_are_quantity_at_price_and_cut_where_they_are_many() -> None:
    entry = depth(1, 2, [("98.9", "1"), ("98.8", "2")], [(f"99.{n}", "10") for n in range(90)])
    shown = line(delivery(entry, stream="depth.SOL_USDC"))
    assert "bids=1@98.9 2@98.8 asks=10@99.0 10@99.1" in shown
    assert shown.endswith("…")
    assert len(shown) < 220


def test_a_gap_says_what_may_be_missing() -> None:
    shown = line(delivery(gap(105, first=103)))
    assert shown.startswith("16:44:00.000 trade.SOL_USDC gap ")
    assert {"from=103", "to=105", "cause=skipped", "repaired=false"} <= set(shown.split())


def test_an_entry_is_one_line_whatever_is_in_it() -> None:
    assert "\n" not in line(delivery(gap(105) | {"cause": "a\nb"}))
