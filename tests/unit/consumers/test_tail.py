"""The tail sample's lines, for public and for account streams."""

import pytest

from consumers.handlers.tail import Tail, line
from tests.support.consumer_entries import START_US, delivery, depth, gap, order_update, trade


def test_tail_prints_a_trade_as_a_readable_line() -> None:
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


def test_tail_prints_what_a_gap_is_missing() -> None:
    shown = line(delivery(gap(105, first=103)))
    assert shown.startswith("16:44:00.000 trade.SOL_USDC gap ")
    assert {"from=103", "to=105", "cause=skipped", "recovered=false"} <= set(shown.split())


def test_tail_prints_one_line_for_an_entry_with_line_breaks_and_escapes() -> None:
    shown = line(delivery(gap(105) | {"cause": "a\nb\x1b[2J"}, stream="trade.X\r\nY"))
    assert shown.isprintable()
    assert r"cause=a\nb\u001b[2J" in shown


ORDER = delivery(order_update("orderFill", "4711", "Filled"), stream="account.orderUpdate")


@pytest.mark.parametrize(("account", "is_shown"), [("hidden", False), ("shown", True)])
def test_tail_shows_only_the_type_of_account_events_unless_configured(
    capsys: pytest.CaptureFixture[str], account: str, is_shown: bool
) -> None:
    tail = Tail(account)
    tail.on_event(ORDER)
    brief = "16:58:10.062 account.orderUpdate orderFill"
    printed = capsys.readouterr().out
    assert ("4711" in printed) is is_shown
    assert printed.startswith(brief)
    assert tail.made() == brief


def test_tail_shows_the_last_line_of_a_public_stream_in_its_status() -> None:
    tail = Tail()
    tail.on_event(delivery(trade(100, START_US)))
    assert tail.made().startswith("16:44:00.000 trade.SOL_USDC trade price=98.96")


def test_tail_refuses_another_option() -> None:
    with pytest.raises(ValueError, match="account=yes: hidden or shown"):
        Tail("yes")


@pytest.mark.parametrize("absurd", [0, 2**64 - 1, START_US + 365 * 86_400_000_000])
def test_tail_shows_the_entrys_time_for_an_implausible_engine_time(absurd: int) -> None:
    fields = trade(100, START_US) | {"engine_us": str(absurd), "event_us": str(absurd)}
    assert line(delivery(fields, at=f"{START_US // 1000}-1000")).startswith("16:44:00.000 trade")


def test_tail_shows_an_entry_whose_id_is_no_time() -> None:
    shown = line(delivery(trade(100, START_US), at="18446744073709551615-1000"))
    assert shown.startswith("23:59:59.99")
