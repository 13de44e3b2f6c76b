"""The continuity of a stream's entries, and the book that its changes result in."""

import json
from collections.abc import Mapping

from bridge.contract.identity import EntryId
from bridge.contract.streams import parse_stream
from bridge.inspect.book import Book
from bridge.inspect.continuity import Break, Continuity, Run, Tally
from bridge.inspect.stored import Stored
from tests.support.consumer_entries import depth, depth_snapshot, entry_id, gap
from tests.support.kept import marked, stored, trades

MS = 1_788_367_440_000_000


def tally(
    stream: str, entries: Mapping[str, Mapping[str, str]], logged: tuple[Run, ...] = ()
) -> Tally:
    one = Continuity(parse_stream(stream), logged)
    for entry in stored(entries):
        one.add(entry, EntryId.parse(entry.id))
    return one.tally


def change(first: int, last: int, bids: list[tuple[str, str]]) -> dict[str, dict[str, str]]:
    return {entry_id(MS, last): depth(first, last, bids, [("99.10", "1")])}


def snapshot(at: int, bids: list[tuple[str, str]]) -> dict[str, dict[str, str]]:
    return {entry_id(MS, at, 2): depth_snapshot(at, bids, [("99.1", "1")])}


def test_trades_that_follow_on_are_dense() -> None:
    found = tally("trade.SOL_USDC", trades(range(101, 111)))
    assert (found.messages, found.breaks, found.gaps) == (10, 0, [])
    assert (found.first_number, found.last_number) == (101, 110)


def test_trades_that_are_missing_without_a_gap_are_a_break() -> None:
    found = tally("trade.SOL_USDC", trades([101, 102, 105]))
    before = next(iter(trades([105])))
    assert (found.breaks, found.first_breaks) == (1, [Break(before, Run(103, 104))])


def test_a_gap_that_names_all_that_is_missing_explains_it() -> None:
    found = tally("trade.SOL_USDC", trades([101, 102]) | marked(103, 104) | trades([105]))
    assert (found.breaks, [one.run for one in found.gaps]) == (0, [Run(103, 104)])


def test_a_gap_that_begins_too_late_leaves_a_break() -> None:
    found = tally("trade.SOL_USDC", trades([101]) | marked(104, 104) | trades([105]))
    assert [one.run for one in found.first_breaks] == [Run(102, 103)]


def test_numbers_that_the_gap_log_shows_are_no_break() -> None:
    logged = (Run(90, 102), Run(103, 104), Run(300, 301))
    found = tally("trade.SOL_USDC", trades([101, 105, 107]), logged)
    assert (found.logged, [one.run for one in found.first_breaks]) == (3, [Run(106, 106)])


def test_a_change_that_does_not_continue_the_last_is_a_break() -> None:
    found = tally("depth.SOL_USDC", change(1, 3, []) | change(4, 6, []) | change(8, 9, []))
    assert [one.run for one in found.first_breaks] == [Run(7, 7)]


def test_changes_may_overlap() -> None:
    assert tally("depth.200ms.SOL_USDC", change(1, 5, []) | change(4, 8, [])).breaks == 0


def test_a_snapshot_equal_to_the_changed_book_agrees_with_any_padding() -> None:
    found = tally(
        "depth.SOL_USDC",
        snapshot(1, [("98.90", "2"), ("98.80", "1")])
        | change(2, 2, [("98.85", "4.0"), ("98.80", "0.00")])
        | snapshot(2, [("98.9", "2.0"), ("98.85", "4")]),
    )
    assert (found.snapshots_compared, found.snapshots_wrong) == (1, [])


def test_a_snapshot_with_another_quantity_is_wrong() -> None:
    other = snapshot(2, [("98.9", "2.5"), ("98.85", "4")])
    found = tally(
        "depth.SOL_USDC", snapshot(1, [("98.9", "2")]) | change(2, 2, [("98.85", "4")]) | other
    )
    assert found.snapshots_wrong == list(other)


def test_levels_beyond_the_last_snapshot_are_not_compared() -> None:
    """The bridge knows levels below the snapshot's last one; a reader of the stream does not."""
    found = tally(
        "depth.SOL_USDC",
        snapshot(1, [("98.9", "2"), ("98.8", "1")])
        | change(2, 2, [("98.9", "0")])
        | snapshot(2, [("98.8", "1"), ("98.7", "7")]),
    )
    assert (found.snapshots_compared, found.snapshots_wrong) == (1, [])


def test_after_a_gap_the_book_is_not_known_until_a_snapshot() -> None:
    marked_7 = {entry_id(MS, 7, 1): dict(gap(7, first=3))}
    found = tally(
        "depth.SOL_USDC",
        snapshot(1, [("98.9", "2")])
        | change(2, 2, [])
        | marked_7
        | change(8, 8, [])
        | snapshot(8, [("97", "1")]),
    )
    assert (found.breaks, found.snapshots_compared, found.snapshots_wrong) == (0, 0, [])


def test_an_id_that_does_not_rise_is_counted() -> None:
    one, other = stored(trades([101, 102]))
    continuity = Continuity(parse_stream("trade.SOL_USDC"))
    continuity.add(other, EntryId.parse(other.id))
    continuity.add(one, EntryId.parse(one.id))
    assert continuity.tally.disorder == 1


def test_the_book_shows_how_many_of_its_levels_are_certain() -> None:
    book = Book()
    first, second = stored(
        snapshot(1, [("98.9", "2"), ("98.8", "1")]) | change(2, 2, [("98.5", "3")])
    )
    assert book.replace(first)
    assert book.apply(second)
    assert book.levels(5)[0] == [("98.9", "2"), ("98.8", "1"), ("98.5", "3")]
    assert book.certain() == (2, 1)


def test_a_change_behind_a_break_makes_the_book_unknown() -> None:
    book = Book()
    first, second = stored(snapshot(1, []) | change(3, 3, []))
    book.replace(first)
    assert not book.apply(second)
    assert book.position is None


def test_fields_of_an_entry_are_read_by_name() -> None:
    entry = Stored("1-10", ("type", "bids", "from"), ["depth", json.dumps([["1", "2"]]), ""])
    assert (entry.type, entry.text("absent"), entry.number("from")) == ("depth", "", None)
    assert entry.levels("bids") == [("1", "2")]
