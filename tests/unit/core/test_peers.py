"""Publishing delays and holds of gaps, from literal statuses of peers."""

import pytest

from bridge.core.peers import (
    DEAD_AFTER_US,
    LAG_US,
    PEER_WAIT_US,
    PUBLISH_DELAY_LAG_US,
    PUBLISH_DELAY_US,
    STALE_POLL_US,
    OutageVerdict,
    Peers,
    PeerStatus,
)
from bridge.runtime.keyspace import KeySpace

NOW_US = 1_790_915_531_000_000
SECOND_US = 1_000_000
ORDERS, TRADES = "account.orderUpdate", "trade.SOL_USDC"
OURS = {ORDERS: NOW_US, TRADES: NOW_US}


def status(instance: str, beat: int = 1, **facts: object) -> PeerStatus:
    reported = {
        "instance": instance,
        "session": instance * 2,
        "beat": beat,
        "at_us": NOW_US,
        **facts,
    }
    return PeerStatus.model_validate(reported)


def poll(
    peers: Peers,
    *others: PeerStatus,
    me: PeerStatus | None = None,
    now_us: int = NOW_US,
    **marks: int,
) -> None:
    own = me or status("m", received=OURS)
    peers.update(own, [own, *others], marks, redis_us=NOW_US, now_us=now_us)


def with_other(name: str, **facts: object) -> Peers:
    peers = Peers()
    poll(peers, status(name, **facts))
    return peers


def may_mark(peers: Peers, after: int = 5, now_us: int = NOW_US) -> bool:
    return peers.may_mark_gap(TRADES, after, NOW_US, waited_since_us=NOW_US, now_us=now_us)


def test_bridge_alone_waits_for_no_other() -> None:
    peers = Peers()

    assert (peers.rank, peers.publish_delay_us(ORDERS), peers.receives(ORDERS)) == (0, 0, False)
    assert may_mark(peers)
    assert peers.hold_from_us("trade.SOL_USDC", NOW_US) == NOW_US
    assert (
        peers.judge_outage(ORDERS, NOW_US, waited_since_us=NOW_US, now_us=NOW_US)
        is OutageVerdict.REAL
    )


def test_a_member_receives_streams_that_its_bridge_reports_without_an_open_outage() -> None:
    peers = Peers()
    poll(
        peers,
        status("b", member="two", received={TRADES: NOW_US}, unsettled={ORDERS: NOW_US}),
        status("c", member="three", received={ORDERS: NOW_US - LAG_US}, stopped=True),
    )

    assert peers.member_receives("two", TRADES)
    assert not peers.member_receives("two", ORDERS)
    assert not peers.member_receives("three", ORDERS)
    assert not peers.member_receives("one", TRADES)
    assert peers.is_received(ORDERS)  # bridge b receives it, with an unsettled outage
    assert not peers.is_received("depth.SOL_USDC")


def test_expected_peers_are_polled_before_any_gap_is_marked() -> None:
    peers = Peers()
    peers.expect()

    assert not peers.is_known
    assert not may_mark(peers)
    poll(peers)
    assert peers.is_known
    assert may_mark(peers)


def test_without_the_first_of_several_shards_the_others_wait_no_longer_than_for_a_bridge() -> None:
    first, other = "trade.JUP_USDC", "trade.SOL_USDC"  # of shards 0 and 3
    peers = Peers(KeySpace("{b}:", 4))
    peers.expect()

    assert not peers.first_poll_failed(NOW_US)
    assert not peers.first_poll_failed(NOW_US + PEER_WAIT_US - 1)
    assert not peers.may_publish(other)
    assert peers.first_poll_failed(NOW_US + PEER_WAIT_US)

    assert peers.may_publish(other)
    assert not peers.may_publish(first)
    assert peers.publish_delay_us(other) == LAG_US + PUBLISH_DELAY_US
    late_us = NOW_US + PEER_WAIT_US
    marks = [
        peers.may_mark_gap(stream, 5, NOW_US, waited_since_us=NOW_US, now_us=now_us)
        for stream, now_us in ((other, late_us - 1), (other, late_us), (first, late_us))
    ]
    assert marks == [False, True, False]
    verdicts = [
        peers.judge_outage(other, NOW_US, waited_since_us=NOW_US, now_us=NOW_US + waited_us)
        for waited_us in (PEER_WAIT_US - 1, PEER_WAIT_US)
    ]
    assert verdicts == [OutageVerdict.WAIT, OutageVerdict.REAL]

    poll(peers)
    assert peers.may_publish(first)
    assert peers.publish_delay_us(other) == 0
    assert not peers.ignores_peers


def test_without_a_poll_of_a_single_redis_nothing_is_published() -> None:
    peers = Peers()
    peers.expect()
    peers.first_poll_failed(NOW_US)

    assert not peers.first_poll_failed(NOW_US + 10 * PEER_WAIT_US)
    assert not peers.may_publish(TRADES)


def test_publish_delay_grows_with_the_peers_before_this_name_that_receive_the_stream() -> None:
    peers = Peers()
    poll(
        peers,
        status("a", received={ORDERS: NOW_US}),
        status("b", received={ORDERS: NOW_US, TRADES: NOW_US}),
        status("z", received={ORDERS: NOW_US}),
    )

    assert peers.rank == 2
    assert peers.publish_delay_us(ORDERS) == 2 * PUBLISH_DELAY_US
    assert peers.publish_delay_us(TRADES) == PUBLISH_DELAY_US
    assert peers.publish_delay_us("liquidation") == 0


def test_peer_that_has_stopped_is_not_live() -> None:
    assert not with_other("a", received={ORDERS: NOW_US}, stopped=True).live


def test_peer_whose_last_status_is_old_at_the_first_poll_is_not_live() -> None:
    assert not with_other("a", at_us=NOW_US - DEAD_AFTER_US).live
    assert with_other("a", at_us=NOW_US - DEAD_AFTER_US + 1).live


def test_peer_without_a_new_status_for_seconds_is_dead_until_the_next_one() -> None:
    peers = with_other("a", received={ORDERS: NOW_US})
    poll(peers, status("a", received={ORDERS: NOW_US}), now_us=NOW_US + DEAD_AFTER_US)
    assert (peers.rank, peers.publish_delay_us(ORDERS)) == (0, 0)

    poll(peers, status("a", 2, received={ORDERS: NOW_US}), now_us=NOW_US + DEAD_AFTER_US + 1)
    assert (peers.rank, peers.publish_delay_us(ORDERS)) == (1, PUBLISH_DELAY_US)


def test_peer_is_live_after_redis_was_unavailable() -> None:
    peers = with_other("a")
    peers.poll_failed()
    later_us = NOW_US + 10 * DEAD_AFTER_US

    poll(peers, status("a"), now_us=later_us)
    assert peers.live
    poll(peers, status("a"), now_us=later_us + DEAD_AFTER_US)
    assert not peers.live


def test_peer_that_lags_by_seconds_loses_its_turn_first_and_then_does_not_receive() -> None:
    peers = Peers()
    stuck = {ORDERS: NOW_US}
    for second in range(20):
        had = {ORDERS: NOW_US + 1 + second * SECOND_US}
        poll(
            peers,
            status("a", second, received=stuck),
            me=status("m", received=had),
            now_us=NOW_US + second * SECOND_US,
        )
        lag_us = second * SECOND_US
        assert peers.publish_delay_us(ORDERS) == (
            0 if lag_us >= PUBLISH_DELAY_LAG_US else PUBLISH_DELAY_US
        )
        assert peers.receives(ORDERS) is (lag_us < LAG_US)
        if second == 10:  # its turn is over, but gaps still wait for it
            assert (peers.publish_delay_us(ORDERS), peers.receives(ORDERS)) == (0, True)


def test_gap_waits_for_a_peer_that_is_held_lower() -> None:
    assert not may_mark(with_other("z", held={TRADES: 4}), after=5)
    assert may_mark(with_other("z", held={TRADES: 5}), after=5)
    assert may_mark(with_other("z", held={TRADES: 9}), after=5)


def test_gap_waits_for_a_peer_that_has_not_received_so_far() -> None:
    assert not may_mark(with_other("z", received={TRADES: NOW_US - 1}))
    assert may_mark(with_other("z", received={TRADES: NOW_US}))
    assert not may_mark(with_other("z", received={TRADES: NOW_US}, oldest_us=NOW_US))
    assert may_mark(with_other("z", received={TRADES: NOW_US}, oldest_us=NOW_US + 1))


def test_gap_waits_for_a_peer_with_unknown_progress() -> None:
    assert not may_mark(with_other("z", oldest_us=1))


def test_gap_does_not_wait_for_a_peer_with_other_streams() -> None:
    assert may_mark(with_other("z", received={ORDERS: NOW_US}))


def test_gap_waits_for_a_peer_no_longer_than_half_a_minute() -> None:
    peers = with_other("z", held={TRADES: 4})

    assert not may_mark(peers, now_us=NOW_US + PEER_WAIT_US - 1)
    assert may_mark(peers, now_us=NOW_US + PEER_WAIT_US)


def test_waiting_restarts_after_an_outage_of_redis() -> None:
    peers = with_other("z", held={TRADES: 4})
    peers.resumed(NOW_US + PEER_WAIT_US)

    assert peers.hold_from_us("trade.SOL_USDC", NOW_US) == NOW_US + PEER_WAIT_US
    assert not may_mark(peers, now_us=NOW_US + PEER_WAIT_US)


def test_waiting_does_not_restart_after_an_outage_of_another_shard() -> None:
    peers = Peers(KeySpace("{bridge}:", 4))
    poll(peers, status("z", held={TRADES: 4}))
    of_trades = KeySpace("{bridge}:", 4).shard_of(TRADES)
    peers.resumed(NOW_US + PEER_WAIT_US, (of_trades + 1) % 4)

    assert may_mark(peers, now_us=NOW_US + PEER_WAIT_US)
    peers.resumed(NOW_US + PEER_WAIT_US, of_trades)
    assert not may_mark(peers, now_us=NOW_US + PEER_WAIT_US)


def test_outage_before_the_watermark_is_covered() -> None:
    peers = Peers()
    poll(peers, status("z", received={ORDERS: NOW_US}), **{ORDERS: NOW_US})

    assert (
        peers.judge_outage(ORDERS, NOW_US, waited_since_us=NOW_US, now_us=NOW_US)
        is OutageVerdict.COVERED
    )


def test_outage_waits_for_the_watermark_while_a_peer_receives_the_stream() -> None:
    peers = with_other("z", received={ORDERS: NOW_US})

    assert (
        peers.judge_outage(ORDERS, NOW_US, waited_since_us=NOW_US, now_us=NOW_US)
        is OutageVerdict.WAIT
    )
    assert (
        peers.judge_outage(ORDERS, NOW_US, waited_since_us=NOW_US, now_us=NOW_US + PEER_WAIT_US)
        is OutageVerdict.REAL
    )


def test_after_a_long_pause_nothing_is_marked_before_the_next_poll() -> None:
    peers = Peers()
    poll(peers)
    later_us = NOW_US + STALE_POLL_US

    assert not may_mark(peers, now_us=later_us)
    assert (
        peers.judge_outage(ORDERS, NOW_US, waited_since_us=NOW_US, now_us=later_us)
        is OutageVerdict.WAIT
    )
    poll(peers, now_us=later_us)
    assert may_mark(peers, now_us=later_us)
    assert (
        peers.judge_outage(ORDERS, NOW_US, waited_since_us=NOW_US, now_us=later_us)
        is OutageVerdict.REAL
    )


def test_of_two_bridges_with_the_same_outage_the_first_by_name_writes_it_first() -> None:
    first, second = with_other("z"), with_other("a")

    assert (
        first.judge_outage(ORDERS, NOW_US, waited_since_us=NOW_US, now_us=NOW_US)
        is OutageVerdict.WAIT
    )
    for peers, other in ((first, "z"), (second, "a")):
        poll(peers, status(other, beat=2), now_us=NOW_US + PUBLISH_DELAY_US)
    assert (
        first.judge_outage(ORDERS, NOW_US, waited_since_us=NOW_US, now_us=NOW_US + PUBLISH_DELAY_US)
        is OutageVerdict.REAL
    )
    assert (
        second.judge_outage(
            ORDERS, NOW_US, waited_since_us=NOW_US, now_us=NOW_US + PUBLISH_DELAY_US
        )
        is OutageVerdict.WAIT
    )
    later_us = NOW_US + 2 * PUBLISH_DELAY_US
    assert (
        second.judge_outage(ORDERS, NOW_US, waited_since_us=NOW_US, now_us=later_us)
        is OutageVerdict.REAL
    )


def test_outage_waits_for_statuses_that_were_written_after_it_was_known() -> None:
    peers = with_other("z")
    poll(peers, status("z"), now_us=NOW_US + 1)
    late_us = NOW_US + 2 * PUBLISH_DELAY_US

    poll(peers, status("z", beat=2), now_us=late_us)  # the first poll after its publication
    assert (
        peers.judge_outage(ORDERS, NOW_US + 2, waited_since_us=NOW_US + 2, now_us=late_us)
        is OutageVerdict.WAIT
    )
    poll(peers, status("z", beat=2), now_us=late_us + 1)
    assert (
        peers.judge_outage(ORDERS, NOW_US + 2, waited_since_us=NOW_US + 2, now_us=late_us + 1)
        is OutageVerdict.WAIT
    )
    poll(peers, status("z", beat=3), now_us=late_us + 2)
    assert (
        peers.judge_outage(ORDERS, NOW_US + 2, waited_since_us=NOW_US + 2, now_us=late_us + 2)
        is OutageVerdict.REAL
    )


def test_waits_are_measured_by_the_steady_clock_not_by_the_exchanges() -> None:
    peers = with_other("z", received={ORDERS: NOW_US})
    waited_us = PEER_WAIT_US // 2

    for to_us in (NOW_US - 3_600 * SECOND_US, NOW_US + 3_600 * SECOND_US):
        verdict = peers.judge_outage(
            ORDERS, to_us, waited_since_us=NOW_US, now_us=NOW_US + waited_us
        )
        assert verdict is OutageVerdict.WAIT
    assert (
        peers.judge_outage(
            ORDERS, NOW_US + 3_600 * SECOND_US, waited_since_us=NOW_US, now_us=NOW_US + PEER_WAIT_US
        )
        is OutageVerdict.REAL
    )


def test_peers_with_other_streams_do_not_delay_a_stream_nor_cover_its_outage() -> None:
    peers = with_other("a", received={TRADES: NOW_US})

    assert (peers.publish_delay_us(TRADES), peers.publish_delay_us(ORDERS)) == (PUBLISH_DELAY_US, 0)
    assert (peers.receives(TRADES), peers.receives(ORDERS)) == (True, False)


# ---- streams that this bridge did not receive lately -------------------------------------------

LAST_US = PUBLISH_DELAY_US + LAG_US  # the delay of the last of two bridges in a stream


def test_bridge_that_starts_comes_last_in_streams_that_a_peer_receives() -> None:
    peers = Peers()
    poll(peers, status("z", received={ORDERS: NOW_US}), me=status("m"))

    assert peers.publish_delay_us(ORDERS) == LAST_US
    assert peers.publish_delay_us(TRADES) == 0


def test_bridge_that_receives_a_stream_takes_its_place_by_name() -> None:
    peers = Peers()
    other = status("z", received={ORDERS: NOW_US})
    poll(peers, other, me=status("m"))
    poll(peers, other, me=status("m", received={ORDERS: NOW_US}))

    assert peers.publish_delay_us(ORDERS) == 0


def test_stream_whose_coverage_ends_is_delayed_at_once_where_a_peer_receives_it() -> None:
    peers = with_other("z", received={ORDERS: NOW_US})
    assert peers.publish_delay_us(ORDERS) == 0

    peers.uncovered([ORDERS, TRADES])

    assert peers.publish_delay_us(ORDERS) == LAST_US
    assert peers.publish_delay_us(TRADES) == 0


@pytest.mark.parametrize("has_failed", [False, True])
def test_status_that_was_made_before_coverage_ended_does_not_end_the_delay(
    has_failed: bool,
) -> None:
    peers = with_other("z", received={ORDERS: NOW_US})
    peers.uncovered([ORDERS])  # a status that reports it as received is in flight
    if has_failed:
        peers.poll_failed()
    else:
        poll(peers, status("z", 2, received={ORDERS: NOW_US}))
        assert peers.publish_delay_us(ORDERS) == LAST_US

    poll(peers, status("z", 3, received={ORDERS: NOW_US}))

    assert peers.publish_delay_us(ORDERS) == 0


def test_delay_lasts_until_the_outage_is_settled() -> None:
    peers = with_other("z", received={ORDERS: NOW_US})
    peers.uncovered([ORDERS])
    for beat in range(2, 9):
        poll(peers, status("z", beat, received={ORDERS: NOW_US}), me=status("m"))
        assert peers.publish_delay_us(ORDERS) == LAST_US

    poll(peers, status("z", 9, received={ORDERS: NOW_US}))

    assert peers.publish_delay_us(ORDERS) == 0


def test_delay_ends_when_the_peer_is_dead() -> None:
    peers = with_other("z", received={ORDERS: NOW_US})
    peers.uncovered([ORDERS])

    poll(
        peers, status("z", received={ORDERS: NOW_US}), me=status("m"), now_us=NOW_US + DEAD_AFTER_US
    )

    assert peers.publish_delay_us(ORDERS) == 0


def test_last_turn_is_behind_every_peer_that_may_hold_copies() -> None:
    peers = Peers()
    poll(peers, status("y"), status("z", received={ORDERS: NOW_US}), me=status("m"))

    assert peers.publish_delay_us(ORDERS) == 2 * PUBLISH_DELAY_US + LAG_US


# ---- streams with unsettled outages ------------------------------------------------------------


def with_unsettled(peer_us: int, **mine: object) -> Peers:
    peers = Peers()
    poll(peers, status("z", unsettled={ORDERS: peer_us}), me=status("m", **mine))
    return peers


def test_bridge_without_a_stream_comes_behind_a_peer_with_an_unsettled_outage() -> None:
    assert with_unsettled(NOW_US).publish_delay_us(ORDERS) == LAST_US


def test_of_two_bridges_with_unsettled_outages_the_later_comes_last() -> None:
    later = with_unsettled(NOW_US - 1, unsettled={ORDERS: NOW_US})
    earlier = with_unsettled(NOW_US + 1, unsettled={ORDERS: NOW_US})
    same = with_unsettled(NOW_US, unsettled={ORDERS: NOW_US})  # the name decides

    assert later.publish_delay_us(ORDERS) == LAST_US
    assert earlier.publish_delay_us(ORDERS) == same.publish_delay_us(ORDERS) == 0


def test_bridge_without_outages_does_not_wait_for_a_peer_with_an_unsettled_one() -> None:
    peers = with_unsettled(NOW_US, received={ORDERS: NOW_US})
    assert peers.publish_delay_us(ORDERS) == 0

    peers.uncovered([ORDERS])

    assert peers.publish_delay_us(ORDERS) == LAST_US


def test_own_status_from_before_coverage_ended_does_not_count_against_an_unsettled_peer() -> None:
    peers = with_unsettled(NOW_US, unsettled={ORDERS: NOW_US - 1})
    peers.uncovered([ORDERS])
    poll(
        peers,
        status("z", 2, unsettled={ORDERS: NOW_US}),
        me=status("m", unsettled={ORDERS: NOW_US - 1}),
    )

    assert peers.publish_delay_us(ORDERS) == LAST_US


def test_outage_waits_for_a_peer_that_received_its_end_and_has_an_outage_of_its_own() -> None:
    late_us = NOW_US + 3 * PUBLISH_DELAY_US
    verdicts = {}
    for peer_us in (NOW_US - 1, NOW_US):
        peers = with_unsettled(peer_us)
        for beat in (2, 3):
            poll(peers, status("z", beat, unsettled={ORDERS: peer_us}), now_us=late_us)
        verdicts[peer_us] = peers.judge_outage(
            ORDERS, NOW_US, waited_since_us=NOW_US, now_us=late_us
        )

    assert verdicts == {NOW_US - 1: OutageVerdict.WAIT, NOW_US: OutageVerdict.REAL}
