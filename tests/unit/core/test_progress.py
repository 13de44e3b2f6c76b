"""The progress that a bridge reports to its peers."""

from bridge.core.peers import BEHIND_US, PeerStatus
from bridge.core.progress import open_outages, progress
from tests.support import frames
from tests.support.core_subject import NOW_US, ORDERS, TRADES, CoreSubject, changed, trade

SECOND_US = 1_000_000


def subject() -> CoreSubject:
    core = CoreSubject(TRADES, ORDERS)
    core.answer(1)
    return core


def test_progress_of_a_bridge_that_reads_its_journal_has_only_the_oldest_time() -> None:
    found = progress([subject().core], is_behind=True)

    assert (found.oldest_us, found.received, found.settled) == (BEHIND_US, {}, {})


def test_progress_without_pending_entries_is_up_to_the_last_answer() -> None:
    found = progress([subject().core], is_behind=False)

    assert found.received == {TRADES: NOW_US, ORDERS: NOW_US}
    assert (found.held, found.oldest_us) == ({}, 0)
    assert set(found.settled) == {ORDERS}  # trades are identified by number


def test_progress_has_the_oldest_waiting_message_and_the_number_that_is_waited_for() -> None:
    core = subject()
    core.receive(trade(5, NOW_US - SECOND_US))
    assert progress([core.core], is_behind=False).oldest_us == NOW_US - SECOND_US

    core.publish()
    core.receive(trade(8, NOW_US))
    core.publish()

    found = progress([core.core], is_behind=False)
    assert (found.held, found.oldest_us) == ({TRADES: 7}, 0)


def test_progress_of_a_bridge_with_a_stream_in_a_backfill_is_not_known() -> None:
    core = subject()
    core.core.detach([ORDERS])

    found = progress([core.core], is_behind=False)

    assert (found.oldest_us, found.settled) == (BEHIND_US, {})


def test_progress_leaves_out_a_stream_whose_outage_is_not_settled() -> None:
    core = subject()
    core.lose(1)
    core.open(2)
    core.now_us += 9 * SECOND_US
    core.answer(2)

    assert open_outages([core.core], ()) == [ORDERS]
    found = progress([core.core], is_behind=False)
    assert ORDERS not in found.settled


def test_an_outage_is_open_until_a_bridge_receives_its_peers_stream() -> None:
    core = CoreSubject(TRADES, ORDERS)
    me, other = status_of("a"), status_of("b", received={TRADES: NOW_US, ORDERS: NOW_US})
    core.peers.update(me, [me, other], {}, redis_us=NOW_US, now_us=NOW_US)

    assert open_outages([core.core], [TRADES, ORDERS]) == [TRADES, ORDERS]
    assert open_outages([core.core], [ORDERS]) == [ORDERS]  # TRADES is not to be received here

    core.answer(1)
    assert open_outages([core.core], [TRADES, ORDERS]) == []
    core.lose(1)
    assert open_outages([core.core], [TRADES, ORDERS]) == [TRADES, ORDERS]


def test_a_stream_that_no_peer_receives_is_not_open() -> None:
    assert open_outages([CoreSubject(TRADES, ORDERS).core], [TRADES, ORDERS]) == []


def test_progress_of_a_stream_is_not_settled_before_it_was_received_first() -> None:
    """A queued entry may be up to a second older than the watermark."""
    core = subject()
    core.receive(order_accepted(NOW_US + SECOND_US // 2))

    assert progress([core.core], is_behind=False).settled == {}

    core.publish()
    assert progress([core.core], is_behind=False).settled == {ORDERS: NOW_US}


def order_accepted(at_us: int) -> str:
    return changed(frames.ORDER_ACCEPTED, E=at_us, T=at_us)


def status_of(instance: str, **facts: object) -> PeerStatus:
    """A status of this bridge with this progress."""
    known = {"instance": instance, "session": instance, "beat": 1, "at_us": NOW_US, **facts}
    return PeerStatus.model_validate(known)
