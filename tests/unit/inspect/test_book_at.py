"""The book at a moment: exact, or the reason why it is unknown."""

import pytest

from bridge.contract.causes import GapCause
from bridge.contract.events import Depth
from bridge.contract.streams import parse_stream
from bridge.core.records import Lost, Opened, Record, SegmentState, Started, Subscribed
from bridge.errors import ConfigError
from bridge.inspect.book_at import (
    BookAt,
    From,
    JournalBook,
    before_gap,
    book_of,
    depth_streams,
)
from bridge.protocol.rest import DepthBody
from tests.support.consumer_entries import START_US, depth, depth_snapshot, entry_id, gap
from tests.support.kept import stored

STREAM = parse_stream("depth.SOL_USDC")
MS = START_US // 1000
HOLD_US = 2_000_000
Entries = dict[str, dict[str, str]]


def change(at: int, bid: str, quantity: str) -> Entries:
    return {entry_id(START_US, at): depth(at, at, [(bid, quantity)], [])}


def marked(first: int, last: int) -> Entries:
    fields = dict(gap(last, first=first)) | {"cause": "stale"}
    return {entry_id(START_US, last, 1): fields}


def start(at: int) -> Entries:
    return {entry_id(START_US, at, 1): dict(gap(at)) | {"from": "", "to": "", "cause": "start"}}


SNAPSHOT = {
    entry_id(START_US, 10, 2): depth_snapshot(10, [("99", "1"), ("98", "2")], [("101", "3")])
}


def at(entries: Entries, count: int = 9) -> BookAt:
    return book_of(STREAM, From.REDIS, reversed(stored(entries)), count)


def test_the_book_is_the_snapshot_and_the_changes_behind_it() -> None:
    found = at(change(10, "97", "9") | SNAPSHOT | change(11, "99", "0") | change(12, "98.5", "4"))
    assert [tuple(level) for level in found.bids] == [("98.5", "4"), ("98", "2")]
    assert [tuple(level) for level in found.asks] == [("101", "3")]
    assert (found.update_id, found.certain, found.unknown) == (12, (2, 1), "")
    assert (found.at_id, found.at_ms) == (entry_id(START_US, 12), MS)


def test_a_level_below_the_snapshots_last_is_not_certain() -> None:
    found = at(SNAPSHOT | change(11, "97", "4"))
    assert [price for price, _ in found.bids] == ["99", "98", "97"]
    assert found.certain == (2, 1)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({}, "redis has no entry of depth.SOL_USDC up to then"),
        (change(11, "1", "1"), "no snapshot before it: its entries begin with"),
        (start(9) | change(10, "1", "1"), "the stream begins at"),
        (SNAPSHOT | marked(11, 14), r"updates 11 to 14 are missing \\(stale, gap"),
        (SNAPSHOT | marked(11, 14) | change(15, "1", "1"), "1 changes since are no book"),
        (SNAPSHOT | change(12, "1", "1"), "the changes do not follow on before"),
    ],
)
def test_where_the_book_cannot_be_known_a_sentence_states_the_reason(
    entries: Entries, why: str
) -> None:
    found = at(entries)
    assert not found.is_known
    assert why.replace("\\\\", "") in found.unknown


@pytest.mark.parametrize(
    "bids",
    ['[["NaN","1"]]', '[["1e9","1"]]', '[["x","y"]]', '[["1","-5"]]', '[["1"]]', "[null]", "{}"],
)
def test_a_side_of_another_program_makes_no_book(bids: str) -> None:
    (entry,) = SNAPSHOT
    found = at({entry: SNAPSHOT[entry] | {"bids": bids}})
    assert found.unknown == f"{entry}: bids is no side of a book: another program wrote it"


def test_a_gap_that_follows_may_have_begun_before_the_moment() -> None:
    (following,) = stored(marked(11, 14))
    assert "some may have come before then" in before_gap(at(SNAPSHOT), following).unknown
    assert before_gap(at(SNAPSHOT), None).is_known
    assert before_gap(at(SNAPSHOT), stored(change(11, "1", "1"))[0]).is_known


def test_a_market_is_searched_in_its_exact_stream_first() -> None:
    assert [one.name for one in depth_streams("SOL_USDC")][:2] == [
        "depth.SOL_USDC",
        "depth.200ms.SOL_USDC",
    ]
    assert [one.name for one in depth_streams("depth.600ms.SOL_USDC")] == ["depth.600ms.SOL_USDC"]
    with pytest.raises(ConfigError, match="is not a stream"):
        depth_streams("SOL USDC")


def received(first: int, last: int, us: int, bid: str = "99", quantity: str = "1") -> Depth:
    return Depth(
        type="depth", symbol="SOL_USDC", first_update_id=first, last_update_id=last,
        bids=[(bid, quantity)], asks=[], event_us=us, engine_us=us, received_us=us,
    )  # fmt: skip


def body(at_update: int) -> DepthBody:
    return DepthBody(lastUpdateId=at_update, bids=[("98", "2"), ("99", "1")], asks=[("101", "3")])


def journal(*received_changes: Depth, until_us: int, body_at: int = 11) -> BookAt:
    book = JournalBook(STREAM, until_us // 1000, HOLD_US)
    for number, one in enumerate(received_changes):
        book.change(one, one.received_us)
        if not number:
            book.body(body(body_at), one.received_us)
    return book.result(9)


def test_the_journals_book_is_the_rest_reply_and_the_changes_until_the_moment() -> None:
    changes = [received(number, number, START_US + number * 1000) for number in (10, 11, 12)]
    later = received(13, 13, START_US + 20_000, "99", "0")
    found = journal(*changes, later, until_us=START_US + 15_000)
    assert [tuple(level) for level in found.bids] == [("99", "1"), ("98", "2")]
    assert (found.update_id, found.certain, found.unknown) == (12, (2, 1), "")


def test_a_gap_in_the_journals_messages_makes_the_book_unknown() -> None:
    changes = [
        received(10, 11, START_US),
        received(12, 12, START_US + 1000),
        received(15, 15, START_US + 2000),
    ]
    found = journal(*changes, received(16, 16, START_US + 3_000_000), until_us=START_US + 4_000_000)
    assert found.unknown == ("updates 13 to 14 are missing, and no snapshot follows until then")


def test_a_hole_at_the_end_of_the_journal_makes_the_book_unknown() -> None:
    changes = [received(n, n, START_US + n * 1000) for n in (11, 12, 15)]
    found = journal(*changes, until_us=START_US + 4_000_000)
    assert found.unknown == (
        "the updates directly after 12 are missing, and another connection may still bring them"
    )


@pytest.mark.parametrize("until_s", [1, 9])
def test_the_journals_book_is_known_again_behind_a_break_and_a_rest_reply(until_s: int) -> None:
    """The reply comes at once; the first change after the break waits for another connection."""
    book = JournalBook(STREAM, (START_US + until_s * 1_000_000) // 1000, HOLD_US)
    for one in (received(10, 11, START_US), received(12, 12, START_US + 1000)):
        book.change(one, one.received_us)
        book.body(body(11), one.received_us)
    behind = [received(n, n, START_US + (n - 19) * 300_000) for n in range(20, 30)]
    for one in behind:
        book.change(one, one.received_us)
        if one is behind[0]:
            book.body(body(20), one.received_us + 100)

    found = book.result(9)

    assert found.unknown == ""
    assert found.update_id == (22 if until_s == 1 else 29)
    assert [tuple(level) for level in found.bids] == [("99", "1"), ("98", "2")]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_the_journals_book_begins_anew_where_no_connection_received_it(is_replaced: bool) -> None:
    """A REST reply before the first change is enough. If another connection has taken over, the
    book continues.
    """
    book = JournalBook(STREAM, MS + 99_000, HOLD_US)
    names, later_us = [STREAM.name], START_US + 1_000_000
    book.happened(Opened(START_US, 1, "public-1", names))
    book.change(received(10, 10, START_US), START_US)
    book.body(body(10), START_US)
    if is_replaced:
        book.happened(Opened(later_us, 2, "public-1", names))
        book.happened(Lost(later_us, 1, GapCause.CONNECTION_LOST))
        book.change(received(11, 11, later_us), later_us)
        assert book.result(9).update_id == 11
        return
    book.happened(Lost(later_us, 1, GapCause.CONNECTION_LOST))
    book.happened(Opened(later_us, 2, "public-1", names))
    assert book.result(9).unknown == (
        "behind update 10 no connection received the stream, and no snapshot follows until then"
    )
    book.body(body(20), later_us + 100)
    book.change(received(20, 20, later_us + 200), later_us + 200)
    assert book.result(9).update_id == 20


@pytest.mark.parametrize(
    ("record", "is_known"),
    [
        (SegmentState(START_US, {1: {STREAM.name: 0}}, {}, ()), True),  # still received
        (SegmentState(START_US, {1: {"trade.SOL_USDC": 0}}, {}, ()), False),
        (Subscribed(START_US, 1, ["trade.SOL_USDC"]), False),
        (Subscribed(START_US, 1, [STREAM.name]), True),
        (Lost(START_US, 3, GapCause.CONNECTION_LOST), True),
        (Started(START_US), False),
    ],
)
def test_the_journals_book_follows_which_connections_receive_it(
    record: Record, is_known: bool
) -> None:
    book = JournalBook(STREAM, MS + 99_000, HOLD_US)
    book.happened(Opened(START_US, 1, "public-1", [STREAM.name]))
    book.change(received(10, 10, START_US), START_US)
    book.body(body(10), START_US)
    book.happened(record)
    book.happened(Opened(START_US, 2, "public-1", [STREAM.name]))
    assert book.result(9).is_known == is_known


def test_the_journals_book_continues_with_numbers_that_began_anew() -> None:
    book = JournalBook(STREAM, MS + 99_000, HOLD_US)
    for one in (received(1000, 1000, START_US), received(1001, 1001, START_US + 1000)):
        book.change(one, one.received_us)
        book.body(body(1000), one.received_us)
    anew = [received(n, n, START_US + 60_000_000 + n * 1000, "97") for n in (10, 11)]
    book.change(anew[0], anew[0].received_us)
    void = book.result(9)
    book.body(body(10), anew[0].received_us)
    book.change(anew[1], anew[1].received_us)

    assert void.unknown == (
        "the numbers began anew with update 10, and no snapshot follows until then"
    )
    assert book.result(9).update_id == 11
    assert [tuple(level) for level in book.result(9).bids][-1] == ("97", "1")


def test_a_journal_without_a_rest_reply_has_no_book() -> None:
    book = JournalBook(STREAM, MS + 10, HOLD_US)
    book.change(received(1, 1, START_US), START_US)
    assert book.result(9).unknown == "the journal has no book of depth.SOL_USDC before it"


def test_a_copy_over_another_connection_changes_nothing() -> None:
    changes = [received(number, number, START_US) for number in (11, 12, 11, 12)]
    assert journal(*changes, until_us=START_US).update_id == 12
