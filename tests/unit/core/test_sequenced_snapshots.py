"""The queue of a depth stream: the places of its snapshots, and due snapshots."""

from bridge.core.sequenced import Sequenced
from tests.support.queues import HOLD_US, sequenced
from tests.support.slots import DEPTH, NOW_US, answer, fields, places, snapshot


def refused(*numbers: int, last: str = "9-50") -> Sequenced:
    """A queue whose head Redis refused because its predecessor is missing."""
    queue = sequenced(*numbers, confirmed=last)
    queue.take(NOW_US, 100)
    queue.settle(answer("hole", last), NOW_US)
    return queue


def test_sequenced_snapshot_whose_place_has_another_makes_no_book_void() -> None:
    queue = sequenced(stream=DEPTH)
    queue.put(snapshot(5))
    queue.take(NOW_US, 100)

    queue.settle(answer("ok", "9-52", "="), NOW_US)

    assert not queue.snapshot_due()
    assert queue.snapshot_tries() == 0


def test_sequenced_snapshot_without_place_is_counted_and_its_tries_reported_once() -> None:
    queue = sequenced(stream=DEPTH)
    misplaced = snapshot(5)
    misplaced.try_again(3)
    queue.put(misplaced)
    queue.take(NOW_US, 100)

    queue.settle(answer("ok", "9-60", "~"), NOW_US)

    assert queue.counters.misplaced_snapshots == 1
    assert [queue.snapshot_tries(), queue.snapshot_tries()] == [3, 0]


def test_sequenced_snapshot_that_rests_ahead_of_the_stream_brings_a_gap() -> None:
    queue = sequenced(stream=DEPTH)
    resting = snapshot(7)
    resting.rest()
    queue.put(resting)
    queue.take(NOW_US, 100)

    queue.settle(answer("ok", "9-40", "~"), NOW_US)

    batch = queue.take(NOW_US, 100)
    assert places(batch) == [("G", 7), ("S", 7)]
    named = fields(batch.slots[0])  # type: ignore[union-attr]
    assert (named["from"], named["to"], named["cause"]) == ("5", "7", "skipped")


def test_sequenced_snapshot_that_rests_in_an_emptied_stream_begins_it_with_the_loss() -> None:
    """`start` would state that nothing is known to be missing."""
    queue = sequenced(stream=DEPTH, confirmed="9-50")
    queue.check_end("0-0", None)
    queue.accept_loss()
    resting = snapshot(7)
    resting.rest()
    queue.put(resting)
    queue.take(NOW_US, 100)

    queue.settle(answer("ok", "0-0", "~"), NOW_US)

    assert queue.acknowledged == "9-50"
    batch = queue.take(NOW_US, 100)
    assert places(batch) == [("G", 7), ("S", 7)]
    assert fields(batch.slots[0])["cause"] == "redis lost entries"  # type: ignore[union-attr]


def test_sequenced_snapshot_due_waits_while_another_one_is_queued() -> None:
    queue = refused(8)
    queue.take(NOW_US + HOLD_US, 100)
    queue.put(snapshot(8))
    queue.settle(answer("ok", "9-80", "++"), NOW_US + HOLD_US)

    assert not queue.snapshot_due()
    queue.take(NOW_US, 1)
    queue.settle(answer("ok", "9-82", "+"), NOW_US)
    assert not queue.snapshot_due()
