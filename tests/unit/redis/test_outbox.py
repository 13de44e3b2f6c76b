"""The requests of the outbox after literal replies of Redis."""

import hiredis
import pytest

from bridge.contract.streams import parse_stream
from bridge.core.peers import Peers
from bridge.core.queue import QueueState, QueueTable, Resume, StreamQueue
from bridge.core.sequenced import Sequenced
from bridge.redis import outbox as outbox_module
from bridge.redis.append import Retention
from bridge.redis.durability import Durability
from bridge.redis.outbox import (
    CHECK_EVERY_US,
    MOST_FORGOTTEN,
    RESUME_EVERY_US,
    Change,
    Outbox,
    OutboxSettings,
    Request,
)
from bridge.runtime.refusals import Refused
from tests.support.queues import content
from tests.support.slots import NOW_US, order, trade

NO_SCRIPT = hiredis.ReplyError("NOSCRIPT No matching script. Please use EVAL.")
WRONG_TYPE = hiredis.ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")
NO_COMMAND = hiredis.ReplyError("NOPERM this user has no permissions to run the 'evalsha' command")


class Owner:
    """The owner of the queues for these markets' trades."""

    def __init__(self, *markets: str) -> None:
        self.table = QueueTable()
        self.queues: dict[str, StreamQueue] = {}
        for market in markets:
            stream = parse_stream(f"trade.{market}_USDC")
            queue = Sequenced(stream, Peers(), Resume(), 0)
            self.queues[market] = queue
            self.table.add(queue, self)

    def redis_answered(self, queue: StreamQueue, now_us: int) -> None:
        """Do nothing."""

    def put(self, *numbers: int) -> None:
        """Put these trades into every queue."""
        for queue in self.queues.values():
            for number in numbers:
                queue.put(trade(number))
            self.table.mark_ready(queue)


def connected(owner: Owner, batch_entries: int = 100) -> tuple[Outbox, Request | None]:
    """A connected outbox whose greeting was answered, and its first request."""
    settings = OutboxSettings("", batch_entries, 1.0)
    outbox = Outbox(owner.table, Peers(), settings, Retention())
    outbox.connected(NOW_US)
    load = outbox.commands(NOW_US)
    assert load is not None
    assert b"SCRIPT" in load.packed
    following = outbox.replies([b"sha"], NOW_US)
    if following is not None and b"bridge:streams" in following.packed:
        following = outbox.replies([1], NOW_US)
    return outbox, following


def markets(request: Request | None) -> str:
    """The initials of the markets whose streams a request publishes to; a space separates the
    calls of the script.
    """
    assert request is not None
    reader, keys = hiredis.Reader(encoding="utf-8"), []
    reader.feed(request.packed)
    while (command := reader.gets()) is not False:
        found = command[3 : 3 + int(command[2])]
        keys.append("".join(key.removeprefix("trade.")[0] for key in found))
    return " ".join(keys)


def ok(number: int, settled: int) -> list[object]:
    return [b"ok", settled, b"9-%d0" % number, b"+" * settled]


def test_outbox_streams_beyond_the_limit_come_first_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_FLUSH_ENTRIES", 4)
    owner = Owner("A", "B", "C", "D", "E")
    owner.put(*range(100, 110))
    outbox, request = connected(owner, batch_entries=2)

    went = []
    for _ in range(3):
        went.append(markets(request))
        request = outbox.replies([[ok(101, 2)], [ok(101, 2)]], NOW_US)

    assert went == ["A B", "C D", "E A"]


def test_outbox_call_has_as_many_streams_as_its_entries_allow() -> None:
    owner = Owner("A", "B", "C", "D", "E")
    owner.put(1, 2)

    _, request = connected(owner, batch_entries=5)

    assert markets(request) == "AB CD E"


def test_outbox_call_of_several_streams_that_is_refused_is_made_for_each_alone() -> None:
    """The user may not write one of the keys: only that stream is suspended."""
    no_key = hiredis.ReplyError("NOPERM this user has no permissions to access one of the keys")
    owner = Owner("A", "B", "C")
    owner.put(1)
    outbox, request = connected(owner)
    assert markets(request) == "ABC"

    request = outbox.replies([no_key], NOW_US)
    assert markets(request) == "A B C"
    outbox.replies([[ok(1, 1)], no_key, [ok(1, 1)]], NOW_US)
    owner.put(2)

    assert outbox.changes() == [(Change.SUSPENDED, owner.queues["B"])]
    assert markets(outbox.commands(NOW_US)) == "AC"


def test_outbox_has_one_request_in_flight() -> None:
    owner = Owner("A")
    owner.put(1)
    outbox, request = connected(owner)
    assert request is not None
    assert request.publishes
    owner.put(2)

    assert outbox.commands(NOW_US) is None


def test_outbox_measures_the_round_trip_of_each_request() -> None:
    owner = Owner("A")
    outbox, _ = connected(owner)
    before = outbox.round_trips.as_dict()["counts"]
    owner.put(1)
    assert outbox.commands(NOW_US) is not None
    assert outbox.commands(NOW_US + 300) is None  # the first request has no reply yet
    outbox.replies([[b"ok", 1, b"1-10", b"+"]], NOW_US + 400)
    after = outbox.round_trips.as_dict()["counts"]
    assert [now - then for now, then in zip(after, before, strict=True)] == [0, 0, 1, *[0] * 10]


def test_outbox_without_connection_reports_nothing() -> None:
    owner = Owner("A")
    owner.put(1)
    outbox, _ = connected(owner)

    outbox.disconnected("gone")

    assert outbox.commands(NOW_US) is None
    assert (outbox.is_connected, outbox.trouble) == (False, "gone")
    assert owner.queues["A"].state is QueueState.OPEN


def test_outbox_every_reply_is_applied_although_another_one_is_an_error() -> None:
    owner = Owner("A", "B", "C")
    owner.put(1)
    outbox, _ = connected(owner)

    outbox.replies([[ok(1, 1), WRONG_TYPE, ok(1, 1)]], NOW_US)

    assert [queue.state for queue in owner.queues.values()] == [
        QueueState.OPEN,
        QueueState.SUSPENDED,
        QueueState.OPEN,
    ]
    assert outbox.changes() == [(Change.SUSPENDED, owner.queues["B"])]
    assert outbox.changes() == []
    published = [queue.counters.published for queue in owner.queues.values()]
    assert (published, outbox.newest_us) == ([1, 0, 1], NOW_US)


def test_outbox_command_refused_for_all_streams_is_redis_unavailable_and_drops_nothing() -> None:
    """The user loses EVALSHA: no stream is suspended and no entry is dropped."""
    owner = Owner("A", "B")
    owner.put(1, 2)
    outbox, _ = connected(owner)

    with pytest.raises(Refused, match="NOPERM"):
        outbox.replies([NO_COMMAND], NOW_US)

    assert outbox.changes() == []
    assert [(q.state, len(q.slots)) for q in owner.queues.values()] == [(QueueState.OPEN, 2)] * 2
    assert owner.table.pending() == 4


def test_outbox_script_that_redis_lost_is_loaded_again_and_all_is_sent_again() -> None:
    owner = Owner("A")
    owner.put(1)
    outbox, _ = connected(owner)

    load = outbox.replies([NO_SCRIPT], NOW_US)
    assert load is not None
    assert b"LOAD" in load.packed

    assert markets(outbox.replies([b"sha"], NOW_US)) == "A"


def test_outbox_script_that_redis_does_not_keep_is_redis_unavailable() -> None:
    owner = Owner("A")
    owner.put(1)
    outbox, _ = connected(owner)
    for _ in range(MOST_FORGOTTEN):
        outbox.replies([NO_SCRIPT], NOW_US)
        outbox.replies([b"sha"], NOW_US)

    with pytest.raises(Refused, match="NOSCRIPT"):
        outbox.replies([NO_SCRIPT], NOW_US)

    assert len(owner.queues["A"].slots) == 1


def test_outbox_greeting_that_is_refused_ends_the_connection() -> None:
    owner = Owner("A")
    outbox = Outbox(owner.table, Peers(), OutboxSettings("", 100, 1.0), Retention())
    outbox.connected(NOW_US)
    outbox.commands(NOW_US)

    with pytest.raises(Refused, match="LOADING"):
        outbox.replies([hiredis.ReplyError("LOADING Redis is loading")], NOW_US)


@pytest.mark.parametrize(("numbers", "registered"), [((), b""), ((1,), b"trade.B_USDC")])
def test_outbox_registers_a_stream_once_something_of_it_was_received(
    numbers: tuple[int, ...], registered: bytes
) -> None:
    owner = Owner("B")
    owner.put(*numbers)
    outbox = Outbox(owner.table, Peers(), OutboxSettings("", 100, 1.0), Retention())
    outbox.connected(NOW_US)
    outbox.commands(NOW_US)

    following = outbox.replies([b"sha"], NOW_US)

    packed = following.packed if following is not None else b""
    assert (b"bridge:streams" in packed) == bool(registered)
    assert registered in packed


def test_outbox_registry_of_another_kind_does_not_stop_publishing() -> None:
    owner = Owner("A")
    owner.put(1)
    outbox = Outbox(owner.table, Peers(), OutboxSettings("", 100, 1.0), Retention())
    outbox.connected(NOW_US)
    outbox.commands(NOW_US)
    outbox.replies([b"sha"], NOW_US)

    assert markets(outbox.replies([WRONG_TYPE], NOW_US)) == "A"
    assert outbox.registry_trouble.startswith("bridge:streams: WRONGTYPE")


def test_outbox_loss_of_one_stream_makes_it_read_all_of_them() -> None:
    owner = Owner("A", "B")
    owner.put(5)
    outbox, _ = connected(owner)
    outbox.replies([[ok(5, 1), ok(5, 1)]], NOW_US)
    owner.queues["A"].put(trade(6))
    owner.table.mark_ready(owner.queues["A"])
    assert markets(outbox.commands(NOW_US)) == "A"

    request = outbox.replies([[[b"gap", 0, b"9-40", b""]]], NOW_US)

    assert markets(request) == "B"  # a probe: B has no pending entries
    request = outbox.replies([[[b"ok", 0, b"0-0", b""]]], NOW_US)
    assert request is not None
    assert request.packed.count(b"XINFO") == 1
    assert outbox.changes() == [(Change.LOST, owner.queues["A"])]
    outbox.replies([hiredis.ReplyError("ERR no such key")], NOW_US)
    assert outbox.changes() == [(Change.LOST, owner.queues["B"])]


def test_outbox_suspended_stream_is_tried_each_ten_seconds_and_resumes() -> None:
    owner = Owner("A")
    owner.put(1)
    outbox, _ = connected(owner)
    assert outbox.replies([WRONG_TYPE], NOW_US) is None
    outbox.changes()

    probe = outbox.commands(NOW_US + CHECK_EVERY_US)
    assert probe is not None
    assert outbox.replies([WRONG_TYPE], NOW_US + CHECK_EVERY_US) is None
    assert outbox.commands(NOW_US + 2 * CHECK_EVERY_US) is None
    later_us = NOW_US + CHECK_EVERY_US + RESUME_EVERY_US
    assert outbox.commands(later_us) is not None

    assert markets(outbox.replies([[[b"ok", 0, b"0-0", b""]]], later_us)) == "A"
    assert outbox.changes() == [(Change.RESUMED, owner.queues["A"])]


def test_outbox_reads_many_streams_by_and_by_and_publishes_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "CHECK_STREAMS", 2)
    owner = Owner("A", "B", "C")
    owner.put(5)
    outbox, _ = connected(owner)
    outbox.replies([[ok(5, 1)] * 3], NOW_US)
    later_us = NOW_US + CHECK_EVERY_US
    is_there = [b"ok", 0, b"9-50", b""]

    requested = [markets(outbox.commands(later_us))]
    owner.queues["A"].put(trade(6))
    owner.table.mark_ready(owner.queues["A"])
    assert markets(outbox.replies([[is_there] * 2], later_us)) == "A"
    assert outbox.due_us() < later_us
    requested.append(markets(outbox.replies([[ok(6, 1)]], later_us)))

    assert requested == ["AB", "C"]
    assert outbox.replies([[is_there]], later_us) is None
    assert outbox.due_us() == later_us + CHECK_EVERY_US


def test_outbox_tail_that_another_server_has_ends_the_connection_and_suspends_no_stream() -> None:
    owner = Owner()
    queue = content()
    owner.table.add(queue, owner)
    queue.put(order("first", NOW_US))
    owner.table.mark_ready(queue)
    outbox, request = connected(owner)
    assert request is not None
    assert b"XREVRANGE" in request.packed
    moved = hiredis.ReplyError("MOVED 3821 10.0.0.1:6379")

    with pytest.raises(Refused, match="MOVED"):
        outbox.replies([moved, moved], NOW_US)

    assert not queue.is_suspended
    assert outbox.changes() == []


@pytest.mark.parametrize("written", [b"OK", hiredis.ReplyError("MOVED 3821 10.0.0.1:6379")])
def test_outbox_durability_is_requested_behind_a_write_of_its_own_in_the_same_slot(
    written: object,
) -> None:
    settings = OutboxSettings("{b.2}:", 100, 1.0, durability=Durability("replica"), shard=2)
    outbox = Outbox(QueueTable(), Peers(), settings, Retention())
    outbox.connected(NOW_US)
    outbox.commands(NOW_US)
    question = outbox.replies([b"sha"], NOW_US)
    assert question is not None
    reader = hiredis.Reader()
    reader.feed(question.packed)
    assert reader.gets()[:2] == [b"SET", b"{b.2}:bridge:durable"]
    assert reader.gets()[0] == b"WAIT"

    if written == b"OK":
        assert outbox.replies([written, 1], NOW_US) is None
        assert outbox.not_durable == ""
    else:
        with pytest.raises(Refused, match="MOVED"):
            outbox.replies([written, 1], NOW_US)
