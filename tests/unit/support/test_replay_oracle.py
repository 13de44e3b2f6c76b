"""The differences that the replay oracle reports."""

import pytest

from tests.oracle import compare
from tests.oracle.cases import Entry
from tests.oracle.compare import Explained, Renamed, differences, judge
from tests.oracle.replaying import ReplayFailed

TRADES, GAPS = "trade.SOL_USDC", "bridge:gaps"


def entry(entry_id: str, stream: str = TRADES, **fields: str) -> Entry:
    return stream, entry_id, {"type": "trade"} | fields


ONE, TWO, THREE = (entry(f"{n}-{n}0", trade_id=str(n)) for n in (1, 2, 3))


def reported(expected: list[Entry], *found: Entry) -> list[str]:
    return [str(each) for each in differences([expected], found)]


def test_equal_entries_are_no_difference() -> None:
    assert reported([ONE, TWO], ONE, TWO) == []


def test_a_missing_entry_is_one_difference_with_any_later_entries() -> None:
    assert reported([ONE, TWO, THREE], ONE, THREE) == [
        "trade.SOL_USDC 2-20 (type=trade, trade_id=2) is missing"
    ]


def test_an_additional_entry_is_reported() -> None:
    assert reported([ONE], ONE, TWO) == [
        "trade.SOL_USDC 2-20 (type=trade, trade_id=2) was not there"
    ]


def test_another_id_is_reported_as_that() -> None:
    assert reported([ONE], (TRADES, "1-11", ONE[2])) == ["trade.SOL_USDC 1-10: the ID is 1-11"]


def test_another_field_is_reported_with_both_values() -> None:
    other = entry("1-10", trade_id="7")

    assert reported([ONE], other) == ["trade.SOL_USDC 1-10: trade_id was '1', is '7'"]


def test_fields_in_another_order_are_reported() -> None:
    other = (TRADES, "1-10", dict(reversed(ONE[2].items())))

    assert reported([ONE], other) == [
        "trade.SOL_USDC 1-10: fields are in another order: trade_id, type"
    ]


def test_an_additional_stream_is_reported() -> None:
    assert reported([], entry("1-1", "depth.X")) == ["depth.X 1-1 (type=trade) was not there"]


def test_any_of_the_recorded_variants_of_a_stream_is_right() -> None:
    assert differences([[ONE, TWO], [ONE, THREE]], [ONE, THREE]) == []


def test_the_order_of_the_gap_log_does_not_count_and_its_content_does() -> None:
    a, b = entry("1-0", GAPS, to="5"), entry("2-0", GAPS, to="6")
    swapped = [entry("1-0", GAPS, to="6"), entry("2-0", GAPS, to="5")]

    assert reported([a, b], *swapped) == []
    assert len(reported([a, b], a)) == 1


def test_a_renamed_field_is_expected_where_the_code_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = Renamed(
        fields={"twin": "occurrence"}, streams={GAPS: "gaps"}, types={"gap": "hole"},
        causes={"silent": "stale"},
    )  # fmt: skip
    monkeypatch.setattr(compare, "RENAMED", renamed)
    recorded = [(GAPS, "1-0", {"type": "gap", "cause": "silent", "twin": ""})]
    now = [("gaps", "1-0", {"type": "hole", "cause": "stale", "occurrence": ""})]

    assert judge("x", "all", [recorded], now).is_same
    assert judge("x", "all", [recorded], recorded).is_same


def test_an_explained_difference_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    why = Explained("counted twice before", ("kills",), lambda stream, *_: stream == TRADES)
    monkeypatch.setattr(compare, "EXPLAINED", [why])

    verdict = judge("kills-1", "all", [[ONE]], [])
    elsewhere = judge("plain-1", "all", [[ONE]], [])

    assert verdict.is_same
    assert verdict.explained == {"counted twice before": 1}
    assert not elsewhere.is_same


def test_a_replay_that_failed_is_not_the_same() -> None:
    assert not judge("x", "all", [[]], ReplayFailed("exit 2")).is_same
