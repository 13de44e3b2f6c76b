"""The queue of a stream identified by content with peers, and fills recovered over REST."""

import pytest

from bridge.contract.events import OrdersSnapshot
from bridge.contract.streams import Stream
from bridge.core import content as content_module
from bridge.core.content import Content
from bridge.core.entries import Slot, content_entry, slot_of
from bridge.core.peers import LAG_US, PEER_WAIT_US, PUBLISH_DELAY_US, Peers
from tests.support.queues import (
    content,
    order_ids,
    poll,
    put_outage,
    sent,
    status,
    tail,
    without_the_first_shard,
)
from tests.support.slots import NOW_US, ORDERS, TICKERS, answer, fields, fill, order, ticker


def following(stream: Stream = ORDERS, **marks: int) -> Content:
    """The queue of bridge `m` for a stream that its peer `a` publishes."""
    return content(stream, peers=beside("a", stream=stream, **marks))


def beside(*names: str, stream: Stream = ORDERS, **marks: int) -> Peers:
    peers = Peers()
    others = [status(name, received={stream.name: NOW_US}) for name in names]
    return poll(peers, *others, stream=stream, **marks)


def test_content_message_that_a_peer_publishes_is_sent_later_and_only_if_it_is_missing() -> None:
    queue = following()
    queue.put(order("theirs", NOW_US))
    queue.put(order("missed", NOW_US + 1))
    queue.put(order("new", NOW_US + 9))
    queue.read_tail(tail("5-0"))
    assert queue.take(NOW_US + PUBLISH_DELAY_US - 1, 100) is None
    assert queue.due_us() == NOW_US + PUBLISH_DELAY_US

    later_us = NOW_US + PUBLISH_DELAY_US + 1
    assert queue.take(later_us, 100) is None
    assert queue.tail_wanted(later_us) is not None
    queue.read_tail(tail("6-0", ("6-0", fields(order("theirs", NOW_US)))))

    batch = queue.take(later_us, 100)
    assert batch is not None
    assert [fields(slot)["order_id"] for slot in batch.slots] == ["missed"]
    assert batch.expected == "6-0"


def test_content_states_that_a_peer_publishes_are_judged_by_the_newest_hundred() -> None:
    queue = following(TICKERS)
    queue.put(ticker(NOW_US))
    queue.read_tail(tail("5-0"))
    assert queue.take(NOW_US, 100) is None

    wanted = queue.tail_wanted(NOW_US + PUBLISH_DELAY_US)

    assert wanted == (NOW_US // 1000 - 10_000, 100)


def test_content_messages_are_sent_at_once_when_the_peer_is_dead() -> None:
    peers = beside("a")
    queue = content(peers=peers)
    queue.put(order())
    queue.read_tail(tail("5-0"))
    assert queue.take(NOW_US, 100) is None

    poll(peers, status("a", 2, stopped=True), stream=ORDERS)

    assert len(sent(queue)) == 1


def test_content_queue_sends_nothing_before_the_first_poll_of_peers() -> None:
    peers = Peers()
    queue = content(peers=peers)
    peers.expect()
    queue.put(order())
    assert queue.tail_wanted(NOW_US) is None

    poll(peers, stream=ORDERS)

    assert queue.tail_wanted(NOW_US) is not None


def test_content_without_the_first_shard_is_sent_last_and_its_outage_waits() -> None:
    queue = content(TICKERS, peers=without_the_first_shard())
    put_outage(queue, NOW_US - 9, NOW_US - 1)
    queue.put(ticker(NOW_US))
    queue.read_tail(tail("5-0"))
    assert queue.take(NOW_US + PEER_WAIT_US - 2, 100) is None
    queue.read_tail(tail("5-0"))

    batch = queue.take(NOW_US + PEER_WAIT_US, 100)

    assert batch is not None
    assert [slot.entry.is_gap for slot in batch.slots] == [True, False]
    without_outage = content(TICKERS, peers=without_the_first_shard())
    without_outage.put(ticker(NOW_US))
    assert without_outage.due_us() == NOW_US + LAG_US + PUBLISH_DELAY_US


def with_outage(queue: Content) -> None:
    put_outage(queue, NOW_US - 9, NOW_US - 1)
    queue.put(order("after", NOW_US))
    queue.read_tail(tail("5-0"))


def test_content_outage_waits_while_a_peer_receives_and_is_dropped_when_it_is_covered() -> None:
    peers = beside("z")
    queue = content(peers=peers)
    with_outage(queue)
    assert queue.outage_until_us() == NOW_US - 1
    assert queue.take(NOW_US, 100) is None

    others = status("z", 2, received={ORDERS.name: NOW_US})
    poll(peers, others, stream=ORDERS, **{ORDERS.name: NOW_US - 1})

    assert order_ids(queue) == ["after"]
    assert queue.outage_until_us() is None


def test_content_outage_is_marked_only_from_where_a_peer_left_off() -> None:
    peers = poll(Peers(), stream=ORDERS, **{ORDERS.name: NOW_US - 4})
    queue = content(peers=peers)
    with_outage(queue)

    gap, _ = sent(queue)

    assert (gap["from_us"], gap["to_us"]) == (str(NOW_US - 4), str(NOW_US - 1))


def account_snapshot(received_us: int) -> Slot:
    event = OrdersSnapshot(symbol=None, orders=[], received_us=received_us)
    return slot_of(content_entry(event, received_us), 0, received_us)


def test_content_account_snapshot_is_written_by_the_bridge_that_publishes_alone() -> None:
    queue = following()
    queue.put(account_snapshot(NOW_US))
    queue.put(order("after", NOW_US + 1))
    later_us = NOW_US + PUBLISH_DELAY_US + 1
    queue.read_tail(tail("5-0"))

    assert [named["type"] for named in sent(queue, later_us)] == ["orderAccepted"]


def test_content_account_snapshot_behind_a_message_is_not_sent_in_its_batch() -> None:
    queue = following()
    queue.put(order("before", NOW_US))
    queue.put(account_snapshot(NOW_US + 1))
    queue.read_tail(tail("5-0"))

    assert [named["type"] for named in sent(queue, NOW_US + PUBLISH_DELAY_US + 1)] == [
        "orderAccepted"
    ]


def test_content_account_snapshot_is_counted_as_one_when_written() -> None:
    queue = content()
    queue.put(account_snapshot(NOW_US))
    queue.read_tail(tail("5-0"))
    queue.take(NOW_US, 100)

    queue.settle(answer("ok", "6-0", "+"), NOW_US)

    assert (queue.counters.snapshots, queue.counters.published) == (1, 0)


def test_content_account_snapshot_is_dropped_with_the_outage_that_a_peer_covered() -> None:
    queue = content(peers=beside("z", **{ORDERS.name: NOW_US}))
    with_outage(queue)
    queue.put(account_snapshot(NOW_US + 1))

    assert [named["type"] for named in sent(queue)] == ["orderAccepted"]


# ---- fills of history ----------------------------------------------------------------------------


def test_content_fill_of_history_that_the_stream_has_is_not_put_in_again() -> None:
    queue = content()
    queue.read_tail(tail("9-0"))
    hour_ago_us = NOW_US - 3_600_000_000 - 1

    fills = [fill(number, hour_ago_us, source="rest") for number in (1, 2)]
    queue.put_recovered(fills)

    assert queue.take(NOW_US, 10) is None
    assert queue.tail_wanted(NOW_US) == (hour_ago_us // 1000 - 10_000, None)
    queue.read_tail(tail("9-0", ("9-0", fields(fill(1, hour_ago_us)))))
    assert [named["trade_id"] for named in sent(queue)] == ["2"]


def test_content_fill_of_history_that_is_already_pending_is_not_put_in_again() -> None:
    queue = content()
    queue.put(fill(1))

    queue.put_recovered([fill(1, source="rest")])

    assert len(queue.slots) == 1


def test_content_fill_of_history_reported_twice_is_put_in_once() -> None:
    queue = content()
    queue.put_recovered([fill(1, source="rest")])

    queue.put_recovered([fill(1, source="rest")])

    assert len(queue.slots) == 1


def test_content_fill_received_after_history_reported_it_is_a_duplicate() -> None:
    queue = content()
    queue.put_recovered([fill(1, source="rest")])

    queue.put(fill(1))

    assert [fields(slot)["source"] for slot in queue.slots] == ["rest"]
    assert queue.counters.duplicates == 1


def test_content_fills_that_come_while_the_tail_is_read_require_another_read() -> None:
    queue = content()
    queue.put(fill(5))
    assert queue.tail_wanted(NOW_US) is not None

    queue.put_recovered([fill(1, NOW_US - 60_000_000, source="rest")])
    queue.read_tail(tail("9-0"))

    assert queue.take(NOW_US, 10) is None
    assert queue.tail_wanted(NOW_US) == ((NOW_US - 60_000_000) // 1000 - 10_000, None)


def test_content_fills_that_come_while_a_batch_is_in_flight_require_a_read_after_it() -> None:
    queue = content()
    queue.put(order("a"))
    queue.read_tail(tail("5-0"))
    queue.take(NOW_US, 10)

    queue.put_recovered([fill(1, source="rest")])
    queue.settle(answer("ok", "7-0", "+"), NOW_US)

    assert queue.take(NOW_US, 10) is None
    assert queue.tail_wanted(NOW_US) is not None


def test_content_remembers_fills_of_history_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_module, "MAX_RECOVERED", 2)
    queue = content()

    queue.put_recovered([fill(number, source="rest") for number in (1, 2, 3)])
    queue.read_tail(tail("9-0"))
    queue.take(NOW_US, 10)
    queue.settle(answer("ok", "9-5", "+++"), NOW_US)
    queue.put(fill(1))
    queue.put(fill(3))

    assert [fields(slot)["trade_id"] for slot in queue.slots] == ["1"]


def test_content_covered_outages_alone_leave_nothing_to_send() -> None:
    queue = content(peers=beside("z", **{ORDERS.name: NOW_US}))
    put_outage(queue, NOW_US - 9, NOW_US - 1)
    queue.read_tail(tail("5-0"))

    assert queue.take(NOW_US, 100) is None
    assert not queue.slots


def test_content_outage_that_a_peer_covered_is_marked_after_redis_lost_the_stream() -> None:
    """The peer finds the stream filled again, and may never notice that its own part is lost."""
    queue = content(peers=poll(Peers(), status("z"), stream=ORDERS, **{ORDERS.name: NOW_US}))
    queue.read_tail(tail("5-0"))
    queue.put(order())
    queue.read_tail(tail("0-0"))

    queue.rewind(0, 100, NOW_US - 100)
    put_outage(queue, NOW_US - 9, NOW_US - 1)
    queue.put(order())
    queue.read_tail(tail("0-0"))

    lost, outage, event = sent(queue)
    assert (lost["cause"], outage["cause"]) == ("redis lost entries", "connection lost")
    assert event["type"] == "orderAccepted"


def test_content_outage_that_was_open_at_a_loss_is_marked_though_a_peer_had_covered_it() -> None:
    queue = content(peers=poll(Peers(), status("z"), stream=ORDERS, **{ORDERS.name: NOW_US}))
    queue.read_tail(tail("5-0"))
    queue.put(order())
    queue.read_tail(tail("0-0"))
    queue.accept_loss()
    queue.read_tail(tail("0-0"))
    assert [entry["type"] for entry in sent(queue)] == ["gap", "orderAccepted"]
    queue.settle(answer("ok", "7-0", signs="++"), NOW_US)

    put_outage(queue, NOW_US - 9, NOW_US - 1)
    queue.read_tail(tail("7-0"))

    assert [entry["cause"] for entry in sent(queue)] == ["connection lost"]


def test_content_gap_of_a_loss_waits_for_no_peer_whatever_the_clock_was_before() -> None:
    """The journal's oldest record is from when this machine's clock was an hour ahead."""
    queue = following()
    queue.read_tail(tail("5-0"))
    queue.put(order())
    queue.read_tail(tail("0-0"))
    assert queue.is_lost

    queue.rewind(0, 100, NOW_US + 3_600_000_000)

    assert queue.tail_wanted(NOW_US) is not None
    queue.read_tail(tail("0-0"))
    assert [named["cause"] for named in sent(queue)] == ["redis lost entries"]
