"""Random runs of one bridge, step by step against a real Redis, and the invariants after each step.

No duplicate, no unmarked loss, only missing messages in gaps, and the right order.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.core.records import BodyKind
from tests.support import frames
from tests.support.examples import examples
from tests.support.full_disk import full
from tests.support.stepped_bridge import RedisSocket, SteppedBridge, history

TRADES, ORDERS, LEDGER = "trade.BTC_USDC_PERP", "account.orderUpdate", "bridge:gaps"
FIRST = 99_419_870
SECOND_US = 1_000_000


def trade(number: int, at_us: int) -> str:
    message = json.loads(frames.TRADE)
    message["data"] |= {"t": number, "E": at_us, "T": at_us}
    return json.dumps(message, separators=(",", ":"))


def order(order_id: str, engine_us: int, at_us: int) -> str:
    message = json.loads(frames.ORDER_ACCEPTED)
    message["data"] |= {"i": order_id, "E": at_us, "T": engine_us}
    return json.dumps(message, separators=(",", ":"))


class Day(RuleBasedStateMachine):
    """The exchange's messages, the faults, and a record of what existed and what was received."""

    client: redis.Redis  # set on the class: hypothesis creates the instances
    raw: redis.Redis  # a client of the same server, without decoding

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.folder = Path(tempfile.mkdtemp())
        self.next_id = FIRST
        self.there: dict[int, int] = {}  # every trade that existed: its time in ms, by trade ID
        # every order event that existed: its ID, the engine's time, and the wall time, µs
        self.orders: list[tuple[str, int, int]] = []
        # received, and not yet handed to the operating system
        self.fresh: list[int | tuple[str, int]] = []
        self.trades_received: set[int] = set()
        self.orders_received: Counter[tuple[str, int]] = Counter()
        self.engine_back_us = 0
        self.older: dict[str, bytes] = {}  # the dumps of an earlier state of Redis, by key
        self.trimmed: dict[str, dict[str, str]] = {}  # orders that retention trimmed, by ID
        self.older_trimmed: dict[str, dict[str, str]] = {}
        self.was_killed_without_journal = False
        self.is_known = True  # false once a bridge was killed whose journal lacks logged gaps
        self.has_lost_gaps = False  # Redis lost records of the gap log; the journal has them
        self.is_ours = True  # no other program wrote to the streams
        self.is_pruned = False  # entries that Redis lacks may be missing, with a gap
        self.disk: pytest.MonkeyPatch | None = None  # set while the disk is full
        self.unsafe: Counter[tuple[str, int]] = Counter()  # orders received while the disk was full

    @initialize()
    def begin(self) -> None:
        self.bridge = SteppedBridge(self.folder, RedisSocket(self.client), [TRADES, ORDERS])
        self.connection = self.bridge.connect()
        self.bridge.log.flush()  # a process killed before the flush leaves no trace
        self.bridge.ingest.step(1000)

    # ---- the exchange --------------------------------------------------------------------------

    @rule(count=st.integers(1, 5))
    def trades(self, count: int) -> None:
        for _ in range(count):
            number = self._trade()
            self.bridge.receive(trade(number, self.now_us), self.connection)
            self.fresh.append(number)

    @rule(count=st.integers(1, 3))
    def trades_that_are_not_sent(self, count: int) -> None:
        for _ in range(count):
            self._trade()

    @rule(count=st.integers(1, 3))
    def numbers_that_are_not_given(self, count: int) -> None:
        self.next_id += count

    @rule(equal=st.integers(1, 2))
    def orders_(self, equal: int) -> None:
        event = self._order(self.engine_back_us)
        for _ in range(equal):
            self.bridge.receive(order(*event, self.now_us), self.connection)
            self.fresh.append(event)

    @rule(seconds=st.sampled_from([0, 12, 60, 1800]))
    def the_engines_clock_is_put_back(self, seconds: int) -> None:
        self.engine_back_us = seconds * SECOND_US

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.bridge.now_us += int(seconds * SECOND_US)

    # ---- what goes wrong -----------------------------------------------------------------------

    @rule(missed=st.integers(0, 4))
    def the_connection_breaks(self, missed: int) -> None:
        """Flush first: the received messages are in the journal before the record of the loss."""
        self._flushed()
        self.bridge.lose(self.connection)
        self._not_received(missed)
        self.connection = self.bridge.connect()

    @rule(missed=st.integers(0, 4))
    def the_bridge_is_killed(self, missed: int) -> None:
        if self.disk is not None:
            self._unsafe()
            self.is_known, self.was_killed_without_journal = False, True
        self.fresh.clear()
        self._empty_the_disk()
        self.bridge.kill()
        self._not_received(missed)
        self.bridge.start()
        self.connection = self.bridge.connect()

    @precondition(lambda self: self.disk is None)
    @rule()
    def the_disk_is_full(self) -> None:
        """Fill the disk after a publication: entries that Redis loses from here on are in no
        journal.
        """
        self._flushed()
        self.bridge.publish(1000)
        self.disk = pytest.MonkeyPatch()
        self.disk.setattr(os, "write", full)

    @precondition(lambda self: self.disk is not None)
    @rule()
    def the_disk_has_room(self) -> None:
        self._flushed()
        self._empty_the_disk()
        self.bridge.recover()

    @precondition(lambda self: self.disk is None)
    @rule(are_published=st.booleans())
    def the_disk_is_full_for_a_minute(self, are_published: bool) -> None:
        self.the_disk_is_full()
        for _ in range(3):
            self.time_passes(20.0)
            self.orders_(2)
        if are_published:
            self.publish(1000, loses_replies=False)
        self.time_passes(20.0)
        self.the_disk_has_room()

    @precondition(lambda self: self.disk is None)
    @rule(keys=st.sampled_from([(TRADES,), (ORDERS,), (TRADES, ORDERS, LEDGER)]))
    def redis_loses(self, keys: tuple[str, ...]) -> None:
        self.has_lost_gaps |= LEDGER in keys
        self.client.delete(*keys)
        if ORDERS in keys:
            self.trimmed.clear()

    @precondition(lambda self: self.disk is None)
    @rule(segments=st.integers(1, 3))
    def the_journal_is_pruned(self, segments: int) -> None:
        self._flushed()
        self.is_pruned = True
        for _ in range(segments):
            self.bridge.prune()

    @rule()
    def redis_is_saved(self) -> None:
        dumps = {key: self.raw.dump(key) for key in (TRADES, ORDERS, LEDGER)}
        self.older = {key: dump for key, dump in dumps.items() if dump is not None}
        self.older_trimmed = dict(self.trimmed)

    @precondition(lambda self: self.older and self.disk is None)
    @rule()
    def redis_falls_back(self) -> None:
        """Redis has only an earlier saved state, as after a crash; later writes are lost."""
        self.has_lost_gaps = True
        self.client.delete(TRADES, ORDERS, LEDGER)
        for key, dump in self.older.items():
            self.raw.restore(key, 0, dump)
        self.trimmed = dict(self.older_trimmed)

    @rule(keep=st.integers(1, 6))
    def retention_takes_orders(self, keep: int) -> None:
        entries = dict(self.client.xrange(ORDERS))
        self.client.xtrim(ORDERS, maxlen=keep, approximate=False)
        left = dict(self.client.xrange(ORDERS))
        self.trimmed |= {key: e for key, e in entries.items() if key not in left}
        if not any("type" in entry for entry in left.values()):
            # only another program's entries are left: the position is unknown
            self.unsafe.update(event_of(e) for e in self.trimmed.values() if is_order(e))

    @rule(key=st.sampled_from([TRADES, ORDERS]))
    def someone_else_writes(self, key: str) -> None:
        if self.bridge.has_unseen_loss(key):
            return  # a foreign entry would hide the loss
        self.client.xadd(key, {"by": "hand"})
        self.is_ours = False

    @precondition(lambda self: self.bridge.ingest.is_live)
    @rule()
    def memory_is_full(self) -> None:
        self._flushed()
        self.bridge.take_over()

    # ---- the bridge's own steps ----------------------------------------------------------------

    @rule(limit=st.integers(1, 20), loses_replies=st.booleans())
    def publish(self, limit: int, loses_replies: bool) -> None:
        self._flushed()
        self.bridge.publish(limit, loses_replies=loses_replies)

    @rule(limit=st.integers(1, 50))
    def catch_up(self, limit: int) -> None:
        self._flushed()
        self.bridge.ingest.step(limit)

    @rule()
    def checkpoint(self) -> None:
        self._flushed()
        self.bridge.save_checkpoint()

    @rule(behind=st.integers(0, 2), rows=st.integers(2, 20), pages=st.integers(1, 4))
    def history_is_asked(self, behind: int, rows: int, pages: int) -> None:
        newest_first = sorted(self.there.items(), reverse=True)[behind:]
        for start in range(0, min(len(newest_first), rows * pages), rows):
            page = newest_first[max(0, start - 1) : start + rows]
            self.bridge.rest_body(TRADES, history(page))

    @rule()
    def history_is_refused(self) -> None:
        self.bridge.rest_body(TRADES, b"[]", BodyKind.END)

    # ---- the invariants ------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "bridge"):
                self._all_is_published()
                self._trades_are_there_once_in_order_or_marked()
                self._orders_are_there_as_often_as_received_or_marked()
                self._the_gap_log_tells_each_gap_once()
        finally:
            self._empty_the_disk()
            if hasattr(self, "bridge"):
                self.bridge.end()
            shutil.rmtree(self.folder)

    def _all_is_published(self) -> None:
        self._flushed()
        for _ in range(200):
            self.bridge.now_us += SECOND_US
            is_reading = self.bridge.ingest.step(1000)
            is_busy = self.bridge.publish(1000)
            waiting = self.bridge.table.pending()
            if not (is_reading or is_busy or waiting or self.bridge.ingest.step(1000)):
                return
        raise AssertionError("entries stay pending for ever")

    def _trades_are_there_once_in_order_or_marked(self) -> None:
        stored: set[int] = set()
        missing: set[int] = set()
        position = None
        for entry_id, entry in self.bridge.read(TRADES):
            if entry["type"] == "gap":
                if entry["from"]:
                    assert position is None or int(entry["from"]) == position + 1
                    first, last = int(entry["from"]), int(entry["to"])
                    missing |= {number for number in self.there if first <= number <= last}
                position = int(entry["to"]) if entry["to"] else None
                continue
            number = int(entry["trade_id"])
            assert number in self.there, "a trade that the exchange never sent"
            after = position or number
            between = [n for n in self.there if after < n < number]
            assert not between, f"numbers before {number} are missing without a gap"
            assert position is None or number > position, "not in order"
            if self.is_ours:  # received or fetched, the same ID in every process
                assert entry_id == f"{self.there[number]}-{number}0", "the ID is not the trade's"
            stored.add(number)
            position = number
        assert not stored & missing, "a gap names an entry that the stream has"
        if not self._may_lose:
            assert not missing & self.trades_received, "a gap names a trade that was received"
            assert self.trades_received <= stored, "a trade that was received is lost"

    def _orders_are_there_as_often_as_received_or_marked(self) -> None:
        entries = [*self.trimmed.values(), *self.bridge.entries(ORDERS)]
        stored = Counter(event_of(e) for e in entries if is_order(e))
        lost, twice = self.orders_received - stored, stored - self.orders_received
        twice -= self.unsafe
        if self.was_killed_without_journal:  # without a new checkpoint they may be received again
            twice -= Counter(event_of(e) for e in self.trimmed.values() if is_order(e))
        assert not lost or self._may_lose, f"lost {dict(lost)}"
        assert not twice, f"duplicates {dict(twice)}"
        outages = [
            (int(e["from_us"] or 0), int(e["to_us"])) for e in entries if e.get("type") == "gap"
        ]
        for *event, at_us in self.orders:
            is_marked = any(from_us <= at_us <= to_us for from_us, to_us in outages)
            assert tuple(event) in stored or is_marked, f"{event} is missing without a gap"

    def _the_gap_log_tells_each_gap_once(self) -> None:
        records = [e for e in self.bridge.entries(LEDGER) if e["type"] == "gap_record"]
        recorded = [
            (e["stream"], e["from"], e["to"], e["from_us"], e["to_us"], e["cause"], e["recovered"])
            for e in records
        ]
        # two gaps without numbers and times (another program wrote twice) differ in `received_us`
        whens = ["" if e["to"] or e["to_us"] else e["received_us"] for e in records]
        each = list(zip(recorded, whens, strict=True))
        assert len(each) == len(set(each)), "a gap is logged twice"
        fetched = {
            int(e["trade_id"]) for e in self.bridge.entries(TRADES) if e.get("source") == "rest"
        }
        gaps = {
            (stream, e["from"], e["to"], e["from_us"], e["to_us"], e["cause"], "false")
            for stream in (TRADES, ORDERS)
            for e in self.bridge.entries(stream)
            if e["type"] == "gap" and e["cause"] != "start"
        }
        if self.is_known and not (self.is_pruned and self.has_lost_gaps):
            unrecorded = gaps - set(
                recorded
            )  # a gap made again from less information may be longer
            assert all(any(covers(r, g) for r in recorded) for g in unrecorded), (
                f"not logged {unrecorded}"
            )
            recovered = [
                (int(r[1]), int(r[2])) for r in recorded if r[0] == TRADES and r[6] == "true"
            ]
            assert all(any(a <= n <= b for a, b in recovered) for n in fetched)

    # ---- helpers -------------------------------------------------------------------------------

    @property
    def _may_lose(self) -> bool:
        """Whether a received message may be missing; then there is a gap."""
        return self.bridge.has_accepted_loss or self.is_pruned

    @property
    def now_us(self) -> int:
        return self.bridge.now_us

    def _trade(self) -> int:
        self.bridge.now_us += 1_000
        number, self.next_id = self.next_id, self.next_id + 1
        self.there[number] = self.now_us // 1000
        return number

    def _order(self, back_us: int = 0) -> tuple[str, int]:
        self.bridge.now_us += 1_000
        self.orders.append((str(len(self.orders)), self.now_us - back_us, self.now_us))
        return self.orders[-1][:2]

    def _not_received(self, count: int) -> None:
        for _ in range(count):
            self._trade()
            self._order()
        self.bridge.now_us += 3 * SECOND_US

    def _flushed(self) -> None:
        """The operating system has all received messages: none of them may be lost from here on."""
        self.bridge.flush()
        if self.bridge.log.is_broken:
            self._unsafe()
        for received in self.fresh:
            if isinstance(received, int):
                self.trades_received.add(received)
            else:
                self.orders_received[received] += 1
        self.fresh.clear()

    def _unsafe(self) -> None:
        """Received messages may be published although no journal has them."""
        self.unsafe.update(received for received in self.fresh if not isinstance(received, int))
        self.fresh.clear()

    def _empty_the_disk(self) -> None:
        if self.disk is not None:
            self.disk.undo()
        self.disk = None


def is_order(entry: Mapping[str, str]) -> bool:
    return entry.get("type") == "orderAccepted"


def event_of(entry: Mapping[str, str]) -> tuple[str, int]:
    return entry["order_id"], int(entry["engine_us"])


def covers(recorded: Sequence[str], gap: Sequence[str]) -> bool:
    """Whether a gap in a stream without numbers lies within a gap of the gap log."""
    if gap[1] or recorded[1] or recorded[0] != gap[0]:
        return False
    return int(recorded[3] or 0) <= int(gap[3] or 0) and int(gap[4]) <= int(recorded[4])


@pytest.fixture
def laws(redis_url: str) -> type[Day]:
    Day.client = redis.Redis.from_url(redis_url, decode_responses=True)
    Day.raw = redis.Redis.from_url(redis_url)
    return Day


@pytest.mark.timeout(240)  # thousands of steps with a few round trips each
def test_random_runs_have_no_duplicate_and_no_loss_without_a_gap(laws: type[Day]) -> None:
    run_state_machine_as_test(laws, settings=examples(12, stateful_step_count=40))


# Cases that random steps rarely produce.


def test_killed_without_a_checkpoint_after_retention_trimmed_orders(laws: type[Day]) -> None:
    day = laws()
    day.begin()
    day.orders_(equal=2)
    day.orders_(equal=1)
    day.publish(limit=20, loses_replies=False)
    day.retention_takes_orders(keep=1)
    day.the_bridge_is_killed(missed=1)
    day.teardown()


@pytest.mark.parametrize("back_s", [12, 60, 1800])
def test_redis_falls_back_while_the_engines_clock_steps_back(back_s: int, laws: type[Day]) -> None:
    day = laws()
    day.begin()
    day.orders_(equal=1)
    day.publish(limit=20, loses_replies=False)
    day.the_engines_clock_is_put_back(seconds=back_s)
    day.orders_(equal=1)
    day.publish(limit=20, loses_replies=False)
    day.redis_is_saved()
    day.time_passes(seconds=1.0)
    day.orders_(equal=2)
    day.publish(limit=20, loses_replies=False)
    day.redis_falls_back()
    day.orders_(equal=1)
    day.teardown()


def test_killed_between_a_gap_and_its_record_in_the_gap_log(laws: type[Day]) -> None:
    day = laws()
    day.begin()
    day.trades(count=1)
    day.publish(limit=20, loses_replies=False)
    day.checkpoint()
    day.trades_that_are_not_sent(count=2)
    day.trades(count=1)
    for _ in range(3):
        day.time_passes(seconds=40.0)
        day.publish(limit=20, loses_replies=False)
        if len(day.bridge.entries(TRADES)) == 4:  # `start`, a trade, the gap, a trade
            break
    day.the_bridge_is_killed(missed=0)
    day.teardown()


def test_gap_logged_while_the_loss_of_the_gap_log_is_not_noticed_yet(laws: type[Day]) -> None:
    day = laws()
    day.begin()
    day.the_connection_breaks(missed=0)
    day.redis_loses(keys=(ORDERS,))
    day.publish(limit=1, loses_replies=False)
    day.redis_loses(keys=(TRADES, ORDERS, LEDGER))
    day.teardown()


def test_killed_before_a_loss_was_noticed(laws: type[Day]) -> None:
    """The gap for the loss is at a position that the checkpoint has settled."""
    day = laws()
    day.begin()
    day.trades(count=4)
    day.time_passes(seconds=20.0)
    day.publish(limit=14, loses_replies=False)
    day.redis_loses(keys=(TRADES,))
    day.checkpoint()
    day.the_bridge_is_killed(missed=2)
    day.teardown()


def test_saved_before_retention_trimmed_orders(laws: type[Day]) -> None:
    day = laws()
    day.begin()
    day.the_disk_is_full_for_a_minute(are_published=True)
    day.redis_is_saved()
    day.retention_takes_orders(keep=1)
    day.redis_falls_back()
    day.teardown()


def test_killed_with_a_full_disk_then_twice_without_a_flush_and_pruned(laws: type[Day]) -> None:
    """The end of the journal is lost and no segment has the earlier connections any more: the time
    from the first kill to the next recorded process is unknown.
    """
    day = laws()
    day.begin()
    day.the_disk_is_full()
    day.history_is_refused()
    day.checkpoint()
    day.the_bridge_is_killed(missed=0)
    day.the_bridge_is_killed(missed=1)
    day.the_journal_is_pruned(segments=1)
    day.the_bridge_is_killed(missed=0)
    day.teardown()


def test_pruned_and_killed_before_any_checkpoint(laws: type[Day]) -> None:
    day = laws()
    day.begin()
    day.orders_(equal=1)
    day.time_passes(seconds=3.0)
    for _ in range(5):
        day.trades(count=5)
    day.the_journal_is_pruned(segments=1)
    day.the_bridge_is_killed(missed=0)
    day.teardown()


def test_retention_left_only_a_gap_of_orders_and_killed_without_a_checkpoint(
    laws: type[Day],
) -> None:
    """The order was received within the interval that the gap names."""
    day = laws()
    day.begin()
    day.orders_(equal=1)
    day.the_connection_breaks(missed=0)
    day.publish(limit=20, loses_replies=False)
    day.retention_takes_orders(keep=1)
    day.the_bridge_is_killed(missed=0)
    day.teardown()


def test_killed_directly_after_the_connection_broke(laws: type[Day]) -> None:
    day = laws()
    day.begin()
    day.orders_(equal=1)
    day.the_connection_breaks(missed=0)
    day.the_bridge_is_killed(missed=0)
    day.teardown()
    assert day.orders_received == {("0", day.orders[0][1]): 1}
