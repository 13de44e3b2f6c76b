"""The exchange's ledger compared with Redis: lost, duplicated, recovered, marked."""

from demo.truth import NOTHING, MarketTruth, Tally


def entry(number: int, price: str = "99.10", source: str = "") -> dict[str, str]:
    return {
        "type": "trade", "trade_id": str(number), "price": price, "quantity": "1.50",
        "source": source,
    }  # fmt: skip


def gap(first: int, last: int) -> dict[str, str]:
    return {"type": "gap", "from": str(first), "to": str(last)}


def tally(traded: list[int], *stored: dict[str, str]) -> Tally:
    truth = MarketTruth()
    truth.traded((number, "99.1", "1.5") for number in traded)
    truth.stored(stored)
    truth.judge()
    return truth.tally


def test_trades_stored_once_are_correct_for_any_padding_of_prices() -> None:
    assert tally([3, 4, 5], entry(3), entry(4), entry(5)) == Tally(judged=3)


def test_a_trade_that_redis_lacks_before_later_ones_is_lost() -> None:
    assert tally([3, 4, 5], entry(3), entry(5)) == Tally(judged=3, lost=1)


def test_a_trade_of_another_price_is_lost() -> None:
    assert tally([3, 4], entry(3), entry(4, "99.11")) == Tally(judged=2, lost=1)


def test_a_trade_after_the_last_one_in_redis_is_not_judged_yet() -> None:
    assert tally([3, 4, 5], entry(3)) == Tally(judged=1)


def test_what_was_traded_before_the_first_entry_does_not_count() -> None:
    assert tally([1, 2, 3], entry(3)) == Tally(judged=1)


def test_a_missing_trade_is_marked_by_a_gap_or_recovered_from_history() -> None:
    result = tally([3, 4, 5, 6], entry(3), gap(4, 4), entry(5, source="rest"), entry(6))
    assert result == Tally(judged=4, recovered=1, marked=1)


def test_a_trade_stored_twice_is_duplicated() -> None:
    assert tally([3, 4], entry(3), entry(4), entry(4)) == Tally(judged=2, doubled=1)


def test_judging_continues_where_it_stopped() -> None:
    truth = MarketTruth()
    for number in range(3, 9):
        truth.traded([(number, "99.1", "1.5")])
        truth.stored([entry(number)])
        truth.judge()
        truth.judge()
    assert (truth.tally, truth.known_to) == (Tally(judged=6), 8)


def test_the_tally_is_one_line() -> None:
    assert (NOTHING + Tally(1200, 0, 0, 3, 1)).text() == (
        "1,200 trades: 0 lost, 0 doubled, 3 recovered, 1 marked as missing"
    )
    assert NOTHING.text() == "0 trades: 0 lost, 0 doubled, 0 recovered"
