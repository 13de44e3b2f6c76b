"""The search for gaps that an earlier process wrote to a stream but maybe not to the gap log."""

from bridge.contract.causes import GapCause
from bridge.core.entries import sequenced_gap
from bridge.core.peers import Peers
from bridge.core.queue import Resume
from bridge.core.sequenced import Sequenced
from bridge.core.unlogged import AT_ONCE, PAGE, PAGES
from tests.support.queues import HOLD_US
from tests.support.slots import NOW_US, TRADES, answer, fields, places, trade

MS = NOW_US // 1000
REPLAYED = 1_000  # bytes of the journal that an earlier process wrote


def gap_entry(number: int, entry_id: str = "") -> tuple[str, dict[str, str]]:
    """The ID and fields of the gap that an earlier process wrote before this trade."""
    waiting = trade(number)
    gap = sequenced_gap(
        waiting, symbol="SOL_USDC", last="9-0", from_=number - 2, cause=GapCause.CONNECTION_LOST
    )
    return entry_id or f"{MS}-{number - 1}1", fields(gap)


def received_again(*numbers: int, confirmed: str = "9-50") -> Sequenced:
    """The queue of a restarted process that has read these trades from the journal."""
    queue = Sequenced(TRADES, Peers(), Resume(0, REPLAYED, confirmed), HOLD_US)
    for at, number in enumerate(numbers):
        queue.put(trade(number, position=100 + at))
    queue.replayed()
    return queue


def test_unlogged_gap_is_searched_at_missing_numbers() -> None:
    queue = received_again(6, 7, 10, 11)
    queue.take(NOW_US, 9)
    queue.settle(answer("ok", "9-110", "===="), NOW_US)

    assert [read.from_id for read in queue.pages_wanted()] == [f"{MS}-{n}1" for n in (5, 9)]
    assert queue.oldest_position() == 100, "after another kill the search must be repeated"
    queue.read_pages([[], [gap_entry(10)]])

    (found,) = queue.gaps_written()
    assert (found.entry.number, found.position) == (9, 102)
    assert fields(found)["cause"] == "connection lost"
    assert list(queue.pages_wanted()) == []
    assert queue.oldest_position() is None


def test_unlogged_gap_is_searched_before_a_message_that_was_not_published() -> None:
    queue = received_again(10)
    queue.take(NOW_US, 9)
    queue.settle(answer("ok", "9-100", "+"), NOW_US)

    assert len(queue.pages_wanted()) == 1


def test_unlogged_gap_is_searched_neither_before_new_messages_nor_after_a_gap_of_ours() -> None:
    queue = received_again(10)
    queue.take(NOW_US, 9)
    queue.settle(answer("gap", "9-50"), NOW_US)
    queue.put(trade(15, position=500))
    assert places(queue.take(NOW_US + HOLD_US, 9)) == [("G", 9), ("A", 10), ("A", 15)]

    queue.settle(answer("ok", "9-150", "+++"), NOW_US)

    assert list(queue.pages_wanted()) == []


def test_unlogged_gap_under_a_raised_id_is_found_behind_entries_of_a_later_time() -> None:
    queue = received_again(900)
    queue.take(NOW_US, 9)
    queue.settle(answer("ok", "9-9000", "="), NOW_US)
    later = MS + 60_000
    before = [(f"{later}-{number}0", fields(trade(number))) for number in range(40, 40 + PAGE)]

    queue.read_pages([before])
    (read,) = queue.pages_wanted()
    assert read.from_id == f"({before[-1][0]}"
    queue.read_pages([[gap_entry(900, f"{later}-8991")]])

    assert [gap.entry.number for gap in queue.gaps_written()] == [899]


def test_unlogged_gap_search_is_bounded() -> None:
    queue = received_again(900)
    queue.take(NOW_US, 9)
    queue.settle(answer("ok", "9-9000", "="), NOW_US)
    page = [(f"9-{number}0", fields(trade(number))) for number in range(40, 40 + PAGE)]

    for _ in range(PAGES):
        assert queue.pages_wanted()
        queue.read_pages([page])

    assert list(queue.pages_wanted()) == []


def test_unlogged_gap_before_a_message_without_a_time_is_searched_at_the_streams_time() -> None:
    queue = received_again()
    queue.rewind(0, REPLAYED, 0)
    slot = trade(10, position=100)
    slot.entry = slot.entry._replace(ms=0)
    queue.put(slot)
    queue.take(NOW_US, 9)
    queue.settle(answer("ok", "9-100", "="), NOW_US)

    assert [read.from_id for read in queue.pages_wanted()] == ["9-91"]


def test_unlogged_page_with_a_start_or_the_message_itself_has_no_gap() -> None:
    queue = received_again(10, 20)
    queue.take(NOW_US, 9)
    queue.settle(answer("ok", "9-200", "=="), NOW_US)

    entry_id, start = gap_entry(10)
    queue.read_pages([[(entry_id, start | {"cause": "start"})], [("9-200", fields(trade(20)))]])

    assert queue.gaps_written() == []


def test_unlogged_places_are_forgotten_when_all_is_received_again() -> None:
    queue = received_again(10)
    queue.take(NOW_US, 9)
    queue.settle(answer("ok", "9-100", "="), NOW_US)

    queue.rewind(0, 0, 0)

    assert list(queue.pages_wanted()) == []


def test_unlogged_pages_that_come_after_all_is_received_again_are_ignored() -> None:
    """Redis lost the stream while the pages were requested."""
    queue = received_again(10)
    queue.take(NOW_US, 9)
    queue.settle(answer("ok", "9-100", "+"), NOW_US)
    pages = queue.pages_wanted()

    queue.rewind(0, REPLAYED, 0)
    queue.read_pages([[gap_entry(10)] for _ in pages])

    assert list(queue.gaps_written()) == []


def test_unlogged_places_are_read_in_limited_number_and_not_of_a_suspended_stream() -> None:
    numbers = range(10, 10 + 2 * (AT_ONCE + 5), 2)
    queue = received_again(*numbers)
    queue.take(NOW_US, 1000)
    queue.settle(answer("ok", f"9-{numbers[-1]}0", "=" * len(numbers)), NOW_US)

    assert len(queue.pages_wanted()) == AT_ONCE
    queue.fail("WRONGTYPE")
    assert list(queue.pages_wanted()) == []
