"""Depth streams in a core: requests of books, and the places of their snapshots."""

from bridge.core.book import QUIET_US
from bridge.core.entries import Op
from bridge.core.outcomes import Join
from bridge.core.plan import ResumePoints
from bridge.core.wants import BookWanted
from tests.support.core_subject import (
    DEPTHS,
    NOW_US,
    TICKERS,
    TRADES,
    CoreSubject,
    book_body,
    depth,
    trade,
)
from tests.support.slots import answer

HOLD_US = 2_000_000


def subject(connections: int = 1, every: int = 0) -> CoreSubject:
    """A core; with two connections, both are answered and have received a tick."""
    core = CoreSubject(
        DEPTHS, TRADES, TICKERS, connections=connections, every=every, hold_us=HOLD_US
    )
    if connections > 1:
        for number in range(1, connections + 1):
            core.answer(number)
            core.tick(number, NOW_US - 1_000_000)
    return core


def with_book(connections: int = 1) -> CoreSubject:
    core = subject(connections)
    core.receive(depth(10))
    assert core.rest(DEPTHS, book_body(10)) is Join.PLACED
    return core


def settled(core: CoreSubject, last: str, signs: str) -> None:
    """Settle all queued entries with this answer of Redis."""
    queue = core.queue(DEPTHS)
    queue.take(core.now_us, 100)
    queue.settle(answer("ok", last, signs), core.now_us)
    core.core.redis_answered(queue, core.now_us)


# ---- requests ------------------------------------------------------------------------------------


def test_core_first_delta_requests_the_book_once() -> None:
    core = subject()

    core.receive(depth(10))
    core.receive(depth(11))

    assert core.requests == [DEPTHS]
    assert core.core.wants(DEPTHS, NOW_US) == BookWanted()


def test_core_known_book_is_not_wanted() -> None:
    assert with_book().core.wants(DEPTHS, NOW_US) is None


def test_core_gap_in_the_deltas_requests_the_book_again() -> None:
    core = with_book()

    core.receive(depth(15))

    assert core.requests == [DEPTHS, DEPTHS]


def test_core_new_connection_requests_the_book_with_its_first_delta() -> None:
    core = subject()
    core.receive(depth(10))

    core.open(1)
    core.receive(depth(11))

    assert core.requests == [DEPTHS, DEPTHS]


def test_core_stream_subscribed_again_requests_the_book_with_its_answer() -> None:
    core = with_book()
    core.answer(1)
    core.subscribe(1, TRADES, TICKERS)
    core.subscribe(1, DEPTHS, TRADES, TICKERS)

    core.answer(1)

    assert core.requests == [DEPTHS, DEPTHS]


def test_core_answered_subscription_requests_the_book_though_nothing_moves() -> None:
    core = subject()

    core.answer(1)

    assert core.requests == [DEPTHS]


def test_core_book_whose_body_came_too_late_is_requested_again_when_the_journal_is_read() -> None:
    core = subject()
    core.answer(1)
    core.tick(1, NOW_US)
    core.receive(depth(10))
    assert core.rest(DEPTHS, book_body(7)) is Join.TOO_OLD

    core.catch_up()

    assert core.requests == [DEPTHS, DEPTHS]


def test_core_body_that_is_known_already_changes_nothing() -> None:
    core = with_book()

    assert core.rest(DEPTHS, book_body(10)) is Join.PLACED

    assert core.waiting(DEPTHS) == [("A", 10), ("S", 10)]


# ---- placing -------------------------------------------------------------------------------------


def test_core_snapshot_is_placed_directly_after_its_delta() -> None:
    core = subject()
    core.receive(depth(10))
    core.receive(depth(11))

    assert core.rest(DEPTHS, book_body(10, [["98", "1"]])) is Join.PLACED
    core.receive(depth(12))

    assert core.waiting(DEPTHS) == [("A", 10), ("A", 11), ("S", 11), ("A", 12)]
    snapshot = core.named(DEPTHS)[2]
    assert (snapshot["update_id"], snapshot["rest_update_id"]) == ("11", "10")
    assert snapshot["bids"] == '[["98","1"]]'
    assert snapshot["asks"] == '[["98.97","22.39"]]'


def test_core_body_ahead_of_the_deltas_is_placed_when_they_reach_it() -> None:
    core = subject()
    core.receive(depth(10))
    assert core.rest(DEPTHS, book_body(12)) is Join.AHEAD

    core.receive(depth(11))
    core.receive(depth(12))

    assert core.waiting(DEPTHS) == [("A", 10), ("A", 11), ("A", 12), ("S", 12)]


def test_core_periodic_snapshot_is_of_the_bridges_own_book() -> None:
    core = subject(every=100)
    core.receive(depth(98))
    core.rest(DEPTHS, book_body(98))

    core.receive(depth(99, 101))

    last = core.queue(DEPTHS).slots[-1]
    assert (last.entry.op, last.entry.number) == (Op.SNAPSHOT, 101)
    assert core.named(DEPTHS)[-1]["rest_update_id"] == ""


def test_core_snapshot_without_place_is_tried_at_the_next_delta_from_the_own_book() -> None:
    core = with_book()
    settled(core, "9-120", "=~")

    core.receive(depth(11))
    core.receive(depth(12))

    assert core.waiting(DEPTHS) == [("A", 11), ("S", 11), ("A", 12)]
    assert core.requests == [DEPTHS]


def test_core_snapshot_whose_place_has_another_bridges_is_not_tried_again() -> None:
    core = with_book()
    settled(core, "9-102", "==")

    core.receive(depth(11))

    assert core.waiting(DEPTHS) == [("A", 11)]


def test_core_gap_without_a_break_in_the_book_is_followed_by_a_snapshot_at_once() -> None:
    core = with_book()
    settled(core, "9-102", "++")
    queue = core.queue(DEPTHS)
    core.receive(depth(11))
    queue.drop_oldest(1)
    core.receive(depth(12))
    queue.take(NOW_US, 10)
    queue.settle(answer("gap", "9-102"), NOW_US)
    core.now_us += HOLD_US

    settled(core, "9-120", "++")

    assert core.waiting(DEPTHS) == [("S", 12)]
    (record,) = core.logged()
    assert (record["from"], record["to"], record["cause"]) == ("11", "11", "overflow")
    assert (record["stream"], record["recovered"], record["how"]) == (DEPTHS, "false", "snapshot")


def test_core_gap_found_in_replayed_messages_adds_no_snapshot() -> None:
    core = CoreSubject(DEPTHS, resume=ResumePoints(0, 1_000))
    core.receive(depth(10))
    core.rest(DEPTHS, book_body(10))
    settled(core, "9-102", "++")
    core.receive(depth(12))
    core.queue(DEPTHS).take(NOW_US, 10)
    core.queue(DEPTHS).settle(answer("gap", "9-102"), NOW_US)

    settled(core, "9-120", "++")

    assert core.waiting(DEPTHS) == []


# ---- unchanged books -----------------------------------------------------------------------------


def test_core_book_without_deltas_is_placed_with_a_start_of_its_own() -> None:
    core = subject()
    core.rest(DEPTHS, book_body(7))
    core.now_us += QUIET_US

    assert core.rest(DEPTHS, book_body(7)) is Join.RESTS
    settled(core, "0-0", "~")

    start, snapshot = core.queue(DEPTHS).slots
    assert (start.entry.op, start.entry.expected, start.entry.number) == (Op.GAP, "0-0", 7)
    named = core.named(DEPTHS)[0]
    assert (named["cause"], named["to"]) == ("start", "")
    assert (snapshot.entry.op, snapshot.entry.number) == (Op.SNAPSHOT, 7)
    assert snapshot.entry.ms == (NOW_US + QUIET_US) // 1000


def test_core_unchanged_book_ahead_of_the_stream_is_placed_after_a_gap_with_the_noted_cause() -> (
    None
):
    core = subject()
    core.answer(1)
    core.lose(1)
    core.open(2)
    for _ in range(2):
        core.rest(DEPTHS, book_body(7))
        core.now_us += QUIET_US
    settled(core, "9-40", "~")

    gap, snapshot = core.queue(DEPTHS).slots
    named = core.named(DEPTHS)[0]
    assert (gap.entry.expected, named["from"], named["to"]) == ("9-40", "5", "7")
    assert named["cause"] == "connection lost"
    assert snapshot.entry.number == 7


def test_core_unchanged_book_at_the_streams_position_is_the_only_snapshot() -> None:
    core = subject()
    for _ in range(2):
        core.rest(DEPTHS, book_body(7))
        core.now_us += QUIET_US

    settled(core, "9-72", "+")

    assert core.waiting(DEPTHS) == []
    assert core.queue(DEPTHS).counters.snapshots == 1


# ---- over several connections --------------------------------------------------------------------


def test_core_book_waits_for_a_delta_that_another_connection_may_have_received() -> None:
    core = with_book(connections=2)

    core.receive(depth(12))  # 11 was lost on the first connection
    core.receive(depth(11), connection=2)
    core.receive(depth(13))

    assert core.requests == [DEPTHS]  # the answered subscription requested it
    assert core.core.wants(DEPTHS, NOW_US) is None


def test_core_book_that_no_connection_completes_in_time_is_void() -> None:
    core = with_book(connections=2)

    core.receive(depth(12))
    core.now_us += HOLD_US
    core.receive(depth(13))

    assert core.requests == [DEPTHS, DEPTHS]


def test_core_book_received_over_one_connection_does_not_wait() -> None:
    core = with_book()

    core.receive(depth(12))

    assert core.requests == [DEPTHS, DEPTHS]


def test_core_delta_that_waits_for_another_connection_waits_no_longer_than_the_overlap() -> None:
    core = with_book(connections=2)
    core.receive(depth(12))  # 11 may come over connection 2
    core.lose(2)
    core.now_us += 61_000_000
    core.receive(trade(1))

    core.receive(depth(13))

    assert core.requests == [DEPTHS, DEPTHS]
    assert core.core._books.position(DEPTHS) == core.position - 1


def test_core_book_of_a_backfilled_stream_is_requested_anew_when_it_is_adopted() -> None:
    core = with_book()
    core.answer(1)
    core.core.detach([DEPTHS])
    core.receive(depth(15))  # the live book takes it too, and becomes void

    backfill = core.core.backfill([core.queue(DEPTHS)])
    core.core.adopt_back(backfill, core.position, core.now_us)
    core.receive(depth(16))

    assert core.requests[-1] == DEPTHS
    assert core.waiting(DEPTHS)[-1] == ("A", 16)
