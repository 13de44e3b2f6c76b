"""The queue of a sequenced stream with peers: its waits for them, and their limits."""

from bridge.contract.streams import parse_stream
from bridge.core.peers import PEER_WAIT_US, PUBLISH_DELAY_US, Peers, PeerStatus
from bridge.core.sequenced import PROBE_EVERY_US, START_GRACE_US, Sequenced
from tests.support.queues import HOLD_US, poll, sequenced, status, without_the_first_shard
from tests.support.slots import NOW_US, TRADES, answer, delta, places, trade

WINDOWS = parse_stream("depth.200ms.SOL_USDC")


def refused(*others: PeerStatus) -> Sequenced:
    queue = sequenced(8, 9, confirmed="9-50", peers=poll(Peers(), *others))
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", "9-50"), NOW_US)
    return queue


def test_sequenced_waiting_queue_shows_which_number_it_needs() -> None:
    assert sequenced(8).waits_after() is None
    assert refused().waits_after() == 7


def test_sequenced_gap_that_no_peer_can_fill_is_marked_in_time() -> None:
    queue = refused(status("z", received={TRADES.name: NOW_US}))

    assert places(queue.take(NOW_US + HOLD_US, 100))[0] == ("G", 7)


def test_sequenced_gap_that_a_peer_may_fill_is_tried_repeatedly() -> None:
    queue = refused(status("z", held={TRADES.name: 6}))
    assert queue.take(NOW_US + PROBE_EVERY_US - 1, 100) is None
    assert queue.due_us() == NOW_US + PROBE_EVERY_US

    assert places(queue.take(NOW_US + 2 * HOLD_US, 100)) == [("A", 8)]
    queue.settle(answer("ok", "9-80", "+"), NOW_US + 2 * HOLD_US)

    assert places(queue.take(NOW_US + 2 * HOLD_US, 100)) == [("A", 9)]
    assert queue.counters.gaps == 0


def test_sequenced_gap_that_the_peer_does_not_fill_is_marked_after_half_a_minute() -> None:
    queue = refused(status("z", held={TRADES.name: 6}))
    queue.take(NOW_US + HOLD_US, 100)
    queue.settle(answer("gap", "9-50"), NOW_US + HOLD_US)

    assert places(queue.take(NOW_US + HOLD_US + PEER_WAIT_US, 100))[0] == ("G", 7)


def test_sequenced_stream_begins_with_the_earliest_message_of_all_bridges() -> None:
    queue = sequenced(8, peers=poll(Peers(), status("z", held={TRADES.name: 5})))
    queue.take(NOW_US, 100)
    queue.settle(answer("empty", "0-0"), NOW_US)

    assert places(queue.take(NOW_US + START_GRACE_US, 100)) == [("A", 8)]
    queue.settle(answer("ok", "9-80", "+"), NOW_US + START_GRACE_US)
    assert queue.waits_after() is None


def test_sequenced_beginning_expected_from_a_peer_is_dropped_when_redis_has_a_stream() -> None:
    queue = sequenced(8, peers=poll(Peers(), status("z", held={TRADES.name: 5})))
    queue.take(NOW_US, 100)
    queue.settle(answer("empty", "0-0"), NOW_US)
    queue.take(NOW_US + START_GRACE_US, 100)

    queue.settle(answer("gap", "9-60"), NOW_US + START_GRACE_US)

    assert places(queue.take(NOW_US + PEER_WAIT_US * 2, 100)) == [("G", 7), ("A", 8)]


def test_sequenced_start_beside_a_peer_waits_a_second() -> None:
    queue = sequenced(8, peers=poll(Peers(), status("z")))
    queue.take(NOW_US, 100)
    queue.settle(answer("empty", "0-0"), NOW_US)

    assert places(queue.take(NOW_US, 100)) == []
    assert places(queue.take(NOW_US + PROBE_EVERY_US, 100)) == [("A", 8)]
    queue.settle(answer("empty", "0-0"), NOW_US + PROBE_EVERY_US)
    late_us = NOW_US + PROBE_EVERY_US + START_GRACE_US
    assert places(queue.take(late_us, 100))[0] == ("G", 7)


def test_sequenced_gap_before_the_first_poll_of_peers_is_not_marked() -> None:
    peers = Peers()
    queue = sequenced(8, confirmed="9-50", peers=peers)
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", "9-50"), NOW_US)
    peers.expect()

    assert queue.take(NOW_US + HOLD_US, 100) is None
    assert queue.due_us() is None
    poll(peers)
    later_us = NOW_US + HOLD_US + PROBE_EVERY_US
    assert queue.due_us() == later_us
    assert places(queue.take(later_us, 100))[0] == ("G", 7)


def test_sequenced_window_is_sent_in_this_bridges_turn() -> None:
    peers = poll(Peers(), status("a", received={WINDOWS.name: NOW_US}), stream=WINDOWS)
    queue = sequenced(stream=WINDOWS, peers=peers)
    queue.put(delta(5, 8))
    queue.put(delta(9, 9, NOW_US + 5))

    assert places(queue.take(NOW_US + PUBLISH_DELAY_US - 1, 100)) == []
    assert queue.due_us() == NOW_US + PUBLISH_DELAY_US
    assert places(queue.take(NOW_US + PUBLISH_DELAY_US, 100)) == [("A", 8)]


def test_sequenced_window_before_the_first_poll_of_peers_is_not_sent() -> None:
    peers = Peers()
    queue = sequenced(stream=WINDOWS, peers=peers)
    queue.put(delta(5, 8))
    peers.expect()

    assert queue.take(NOW_US, 100) is None
    poll(peers, stream=WINDOWS)
    assert places(queue.take(NOW_US, 100)) == [("A", 8)]


def test_sequenced_queue_without_the_first_shard_waits_as_for_a_peer_before_its_gap() -> None:
    queue = sequenced(8, confirmed="9-50", peers=without_the_first_shard())
    queue.take(NOW_US, 100)
    queue.settle(answer("gap", "9-50"), NOW_US)

    waiting_us = NOW_US + HOLD_US
    assert queue.take(waiting_us, 100) is None
    late_us = waiting_us + PEER_WAIT_US
    assert places(queue.take(late_us, 100))[0] == ("G", 7)


def test_sequenced_window_taken_over_from_a_peer_requires_a_whole_book() -> None:
    peers = poll(Peers(), status("a", received={WINDOWS.name: NOW_US}), stream=WINDOWS)
    queue = sequenced(stream=WINDOWS, peers=peers)
    queue.put(delta(5, 8))
    queue.take(NOW_US, 100)

    poll(peers, status("a", 2, stopped=True), stream=WINDOWS)
    queue.take(NOW_US, 100)

    assert queue.snapshot_due()


def test_sequenced_oldest_waiting_time_is_reported_unless_the_queue_waits_for_a_number() -> None:
    queue = sequenced()
    assert queue.oldest_waiting_us() is None
    queue.put(trade(8, NOW_US - 5))
    assert queue.oldest_waiting_us() == (NOW_US - 5) // 1000 * 1000

    assert refused().oldest_waiting_us() is None
