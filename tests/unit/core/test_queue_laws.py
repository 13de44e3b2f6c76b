"""Invariants of queues under random puts, partial answers, lost replies and losses.

The server is in memory. After each step `bytes` is the sum of the slots' sizes, and each change of
state is in the table of `bridge/core/queue.py`.
"""

from collections import Counter
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.contract.identity import EntryId
from bridge.core.content import Content
from bridge.core.entries import Answer
from bridge.core.peers import Peers
from bridge.core.queue import Batch, QueueState, Resume, StreamQueue
from bridge.core.sequenced import Sequenced
from bridge.core.tail import Tail, edge, identify
from bridge.redis.append import UNLIMITED, pack, pack_append, read_answers
from bridge.redis.ends import decoded
from tests.support.examples import examples
from tests.support.memory_server import MemoryServer
from tests.support.queues import HOLD_US, put_outage
from tests.support.slots import NOW_US, ORDERS, TRADES, order, trade

OPEN, IN_FLIGHT, WAITING, SUSPENDED, LOST = QueueState
FIRST = 100

# The table of the docstring of `bridge/core/queue.py`: call, state before, state after.
TABLE: dict[str, set[tuple[QueueState, QueueState]]] = {
    "take": {(OPEN, IN_FLIGHT), (WAITING, IN_FLIGHT)},
    "put": {(WAITING, OPEN)},  # released by the missing message
    "settle": {
        (IN_FLIGHT, OPEN),
        (IN_FLIGHT, WAITING),
        (IN_FLIGHT, SUSPENDED),
        (IN_FLIGHT, LOST),
    },
    "no_reply": {(IN_FLIGHT, OPEN), (IN_FLIGHT, WAITING)},
    "fail": {(OPEN, SUSPENDED), (IN_FLIGHT, SUSPENDED), (WAITING, SUSPENDED)},
    "resume": {(SUSPENDED, OPEN)},
    "check_end": {(OPEN, LOST)},
    "read_tail": {(OPEN, LOST)},
    "accept_loss": {(LOST, OPEN), (LOST, WAITING)},
    "rewind": {(SUSPENDED, OPEN), (LOST, OPEN), (LOST, WAITING)},
    "discard": set(),
    "drop_oldest": set(),
    "drain": set(),
}


class Machine(RuleBasedStateMachine):
    """One queue and its stream."""

    queue: StreamQueue

    def __init__(self) -> None:
        super().__init__()
        self.redis = MemoryServer()
        self.now_us = NOW_US
        self.position = 0
        self.batch: Batch | None = None

    def do(self, what: str, call: Callable[[], object]) -> object:
        """Call the queue and check its change of state; return the call's result."""
        before = self.queue.state
        result = call()
        after = self.queue.state
        assert before is after or (before, after) in TABLE[what], f"{what}: {before} → {after}"
        return result

    @invariant()
    def bytes_are_those_of_the_slots(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.bytes == sum(slot.size for slot in self.queue.slots)

    @invariant()
    def only_a_queue_in_flight_has_slots_in_flight(self) -> None:
        if hasattr(self, "queue"):
            is_in_flight = self.queue.state is IN_FLIGHT
            assert bool(self.queue.in_flight) == is_in_flight
            assert self.queue.in_flight <= len(self.queue.slots)

    # ---- Redis -----------------------------------------------------------------------------------

    @rule(limit=st.integers(1, 8))
    def take(self, limit: int) -> None:
        if self.batch is not None:
            return
        self.read_tail()
        batch = self.do("take", lambda: self.queue.take(self.now_us, limit))
        assert batch is None or isinstance(batch, Batch)
        self.batch = batch

    @precondition(lambda self: self.batch is not None)
    @rule()
    def answer(self) -> None:
        assert self.batch is not None
        self.settle(self.append(self.batch))

    def append(self, batch: Batch) -> Answer:
        packed = pack_append([(self.queue.name.encode(), UNLIMITED, batch)])
        [answer] = read_answers(self.redis.call(packed, 1)[0], 1)
        assert isinstance(answer, Answer)
        return answer

    def stored(self) -> list[tuple[EntryId, dict[str, str]]]:
        [entries] = self.redis.call(pack("XRANGE", self.queue.name, "-", "+"), 1)
        return [(EntryId.parse(entry_id), fields) for entry_id, fields in decoded(entries)]

    def settle(self, answer: Answer) -> None:
        self.batch = None
        self.do("settle", lambda: self.queue.settle(answer, self.now_us))

    @precondition(lambda self: self.batch is not None)
    @rule(has_arrived=st.booleans())
    def lose_the_reply(self, has_arrived: bool) -> None:
        assert self.batch is not None
        if has_arrived:
            self.append(self.batch)
        self.batch = None
        self.do("no_reply", self.queue.no_reply)

    @precondition(lambda self: self.batch is not None)
    @rule(reads=st.booleans())
    def refuse(self, reads: bool) -> None:
        """Let Redis refuse this stream, then accept it again."""
        self.batch = None
        self.do("fail", lambda: self.queue.fail("WRONGTYPE"))
        self.do("resume", self.queue.resume)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)

    def read_tail(self) -> None:
        if (wanted := self.queue.tail_wanted(self.now_us)) is None:
            return
        stored = self.stored()
        entries = [fields for entry_id, fields in stored if entry_id.ms >= wanted.from_ms]
        stored_here = (identify(self.queue.stream, fields) for fields in entries)
        known = [entry for entry in stored_here if entry is not None]
        newest = edge(str(stored[-1][0]), stored[-1][1]) if stored else None
        tail = Tail(self.redis.last(self.queue.name), known, None, newest)
        self.do("read_tail", lambda: self.queue.read_tail(tail))

    def publish_all(self) -> None:
        for _ in range(200):
            self.now_us += 1_000_000
            if self.batch is not None:
                self.answer()
            if not self.queue.slots:
                return
            self.take(100)
        raise AssertionError("the queue did not drain in 200 s")


class SequencedMachine(Machine):
    """Trades put out of order; in the end each is in the stream once and in order."""

    def __init__(self) -> None:
        super().__init__()
        self.next = FIRST
        self.late: list[int] = []
        self.received: set[int] = set()

    @initialize()
    def begin(self) -> None:
        self.queue = Sequenced(TRADES, Peers(), Resume(), HOLD_US)
        self.put(self.next)
        self.next += 1

    def put(self, number: int) -> None:
        self.position += 1
        at_us = NOW_US + (number - FIRST) * 1_000
        slot = trade(number, at_us, position=self.position)
        slot.at_us = self.now_us
        self.received.add(number)
        self.do("put", lambda: self.queue.put(slot))

    @rule(count=st.integers(1, 4))
    def in_order(self, count: int) -> None:
        for _ in range(count):
            self.put(self.next)
            self.next += 1

    @rule(count=st.integers(1, 3))
    def left_out(self, count: int) -> None:
        """Skip numbers, which come late or never."""
        self.late += range(self.next, self.next + count)
        self.next += count

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def late_one(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.late))
        self.late.remove(number)
        self.put(number)

    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """A duplicate from another connection, outside the window of received messages."""
        number = data.draw(st.sampled_from(sorted(self.received)))
        self.put(number)

    @rule()
    def drain(self) -> None:
        self.do("drain", self.queue.drain)

    @rule()
    def redis_loses_all_and_nothing_can_be_had_again(self) -> None:
        self.redis.flush()
        if self.batch is None:
            self.do("check_end", lambda: self.queue.check_end("0-0", None))
            if self.queue.is_lost:
                self.do("accept_loss", self.queue.accept_loss)

    @invariant()
    def a_batch_is_in_order(self) -> None:
        if self.batch is not None:
            places = [(slot.entry.number, slot.entry.op) for slot in self.batch.slots]
            assert places == sorted(places)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        for _ in range(3):
            self.publish_all_but_losses()
        self.stream_is_in_order()

    def publish_all_but_losses(self) -> None:
        for _ in range(200):
            self.now_us += 1_000_000
            if self.batch is not None:
                self.answer()
            if self.queue.is_lost:
                self.do("accept_loss", self.queue.accept_loss)
            if not self.queue.slots:
                return
            self.take(100)
        raise AssertionError("the queue did not drain in 200 s")

    def stream_is_in_order(self) -> None:
        """Check that each number between first and last is there once, or covered by a gap."""
        position: int | None = None
        for entry_id, fields in self.stored():
            if fields["type"] == "gap":
                if fields["from"]:
                    assert position is not None
                    assert int(fields["from"]) == position + 1
                    named = set(range(int(fields["from"]), int(fields["to"]) + 1))
                    assert int(fields["to"]) >= int(fields["from"])
                    assert named
                position = entry_id.position
                continue
            number = int(fields["trade_id"])
            assert position is None or number == position + 1
            position = number


class SequencedWithoutLossMachine(SequencedMachine):
    """Without losses in Redis each trade that is not too late is in the stream."""

    redis_loses_all_and_nothing_can_be_had_again = None  # type: ignore[assignment]

    def teardown(self) -> None:
        super().teardown()
        if not hasattr(self, "queue"):
            return
        stored = [int(f["trade_id"]) for _, f in self.stored() if f["type"] == "trade"]
        assert len(stored) == len(set(stored))
        named = {
            number
            for _, fields in self.stored()
            if fields["type"] == "gap" and fields["from"]
            for number in range(int(fields["from"]), int(fields["to"]) + 1)
        }
        # a trade that came after its gap was written stays missing, and is covered by the gap
        first = stored[0]
        assert {n for n in self.received if n >= first} <= set(stored) | named
        assert not set(stored) & named
        assert max(self.received) in stored


class ContentMachine(Machine):
    """Orders are in the stream as often as they were put, although replies are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.received: Counter[str] = Counter()

    @initialize()
    def begin(self) -> None:
        self.queue = Content(ORDERS, Peers(), Resume())

    @rule(count=st.integers(1, 4), back_s=st.sampled_from([0, 0, 5, 60]))
    def received_now(self, count: int, back_s: int) -> None:
        for _ in range(count):
            self.now_us += 1_000
            self.position += 1
            name = str(len(self.received))
            self.received[name] += 1
            engine_us = self.now_us - back_s * 1_000_000
            slot = order(name, engine_us, self.now_us, position=self.position)
            self.do("put", lambda slot=slot: self.queue.put(slot))  # type: ignore[misc]

    @rule()
    def outage(self) -> None:
        assert isinstance(self.queue, Content)
        self.now_us += 2_000_000
        put_outage(self.queue, self.now_us - 1_000_000, self.now_us)

    @rule()
    def another_program_writes(self) -> None:
        self.redis.xadd(self.queue.name, {"by": "hand"}, NOW_US // 1000)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.publish_all()
        stored = Counter(fields["order_id"] for _, fields in self.stored() if "order_id" in fields)
        assert stored == self.received


class ContentLosingMachine(ContentMachine):
    """Redis loses the whole stream without recovery; a gap covers the loss."""

    @rule()
    def redis_loses_all(self) -> None:
        if self.batch is None:
            self.redis.flush()
            self.do("check_end", lambda: self.queue.check_end("0-0", None))
            if self.queue.is_lost:
                self.do("accept_loss", self.queue.accept_loss)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        for _ in range(200):
            self.now_us += 1_000_000
            if self.batch is not None:
                self.answer()
            if self.queue.is_lost:
                self.do("accept_loss", self.queue.accept_loss)
            if not self.queue.slots:
                break
            self.take(100)
        names = [fields.get("order_id") for _, fields in self.stored()]
        once = [name for name in names if name]
        assert len(once) == len(set(once))
        assert set(once) <= set(self.received)


BOUNDED = examples(12, stateful_step_count=40)


def test_sequenced_queue_with_losses_keeps_its_stream_in_order_and_its_states_in_the_table() -> (
    None
):
    run_state_machine_as_test(SequencedMachine, settings=BOUNDED)


def test_sequenced_queue_loses_no_message_and_sends_none_out_of_order() -> None:
    run_state_machine_as_test(SequencedWithoutLossMachine, settings=BOUNDED)


def test_content_queue_with_lost_replies_writes_each_message_once() -> None:
    run_state_machine_as_test(ContentMachine, settings=BOUNDED)


def test_content_queue_whose_stream_is_lost_writes_no_message_twice() -> None:
    run_state_machine_as_test(ContentLosingMachine, settings=BOUNDED)
