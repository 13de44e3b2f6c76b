"""Numbers of the exchange that restart, or are implausible once, without losses or duplicates.

The server is in memory.
"""

from collections.abc import Callable

import pytest

from bridge.core import sequenced as sequenced_module
from bridge.core.entries import Slot
from bridge.core.plan import ResumePoints
from bridge.core.sequenced import RENUMBER_AFTER_US
from tests.support.core_subject import (
    BOOK_TICKERS,
    DEPTHS,
    NOW_US,
    TRADES,
    CoreSubject,
    book_ticker,
    depth,
    trade,
)
from tests.support.memory_server import MemoryServer

SECOND_US = 1_000_000
ABSURD = 800_000_000_000_000
FIRST = 4_330_360_995


class Market:
    """Sends one stream's messages to a core, `step_us` µs apart. `sent` has all frames."""

    def __init__(self, core: CoreSubject, frame: Callable[..., str], step_us: int = 1_000) -> None:
        self.core = core
        self.sent: list[tuple[int, str]] = []
        self._frame = frame
        self._step_us = step_us

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.send_at(0, number)

    def send_at(self, ahead_us: int, number: int) -> None:
        """Send a message whose time is `ahead_us` µs ahead of the clock."""
        self.core.now_us += self._step_us
        frame = self._frame(number, at_us=self.core.now_us + ahead_us)
        self.sent.append((self.core.now_us, frame))
        self.core.receive(frame)

    def replay(self, core: CoreSubject, first: int) -> None:
        """Replay the frames from index `first` on, as another process does from its journal."""
        for position, (at_us, frame) in enumerate(self.sent[first:], first + 1):
            core.now_us = at_us
            core.receive(frame, position=position)


def depth_frame(number: int, *, at_us: int) -> str:
    return depth(number, at_us=at_us)


def trade_frame(number: int, *, at_us: int) -> str:
    return trade(number, at_us)


def settle_down(core: CoreSubject) -> None:
    """Let 50 s pass, longer than every wait, and publish each second."""
    for _ in range(50):
        core.now_us += SECOND_US
        core.publish()


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list whose only element counts the calls of `_order` from now on."""
    count, order = [0], sequenced_module._order

    def counted(slot: Slot) -> tuple[int, str]:
        count[0] += 1
        return order(slot)

    monkeypatch.setattr(sequenced_module, "_order", counted)
    return count


# ---- one implausible number in a backlog ---------------------------------------------------------


@pytest.mark.parametrize(("name", "frame"), [(DEPTHS, depth_frame), (TRADES, trade_frame)])
def test_renumbered_backlog_with_one_absurd_number_loses_nothing_and_has_nothing_twice(
    name: str, frame: Callable[..., str]
) -> None:
    core = CoreSubject(name)
    market = Market(core, frame, 20_000)
    market.send(*range(FIRST, FIRST + 10))
    core.publish()

    market.send(*range(FIRST + 10, FIRST + 100), ABSURD, *range(FIRST + 100, FIRST + 500))
    core.now_us += 60 * SECOND_US  # Redis was unavailable
    settle_down(core)

    assert core.redis.numbers(name) == [
        "gap - start",
        *map(str, range(FIRST, FIRST + 100)),
        f"gap {FIRST + 100}-{ABSURD - 1} skipped",
        str(ABSURD),
        "gap - renumbered",
        *map(str, range(FIRST + 100, FIRST + 500)),
    ]


@pytest.mark.parametrize("ahead_us", [0, 3_000_000_000])
def test_renumbered_backlog_with_an_absurd_number_takes_bounded_steps_a_message(
    ahead_us: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The implausible number has the time of its neighbours, or a time an hour ahead."""
    core = CoreSubject(DEPTHS)
    market = Market(core, depth_frame)
    market.send(*range(FIRST, FIRST + 1_000))
    core.receive(depth(ABSURD, at_us=core.now_us + ahead_us))
    steps = count_steps(monkeypatch)

    market.send(*range(FIRST + 1_000, FIRST + 4_000))

    assert steps[0] <= 4 * 3_000


def test_renumbered_late_messages_take_bounded_steps_each(monkeypatch: pytest.MonkeyPatch) -> None:
    core = CoreSubject(DEPTHS)
    monkeypatch.setattr(sequenced_module, "MOST_PASSED", 100)
    for number in range(FIRST, FIRST + 1_000):
        core.receive(depth(number))
    steps = count_steps(monkeypatch)

    for number in range(FIRST - 1, FIRST - 51, -1):
        core.receive(depth(number))

    assert steps[0] <= 50 * (100 + 1)


def test_renumbered_absurd_number_alone_in_redis_does_not_stop_the_stream() -> None:
    """Redis is available throughout."""
    core = CoreSubject(DEPTHS)
    market = Market(core, depth_frame, 100_000)
    for number in (*range(FIRST, FIRST + 20), ABSURD, *range(FIRST + 20, FIRST + 120)):
        market.send(number)
        core.publish()
    settle_down(core)

    numbers = core.redis.numbers(DEPTHS)
    assert numbers.count("gap - renumbered") == 1
    assert numbers[numbers.index("gap - renumbered") + 1 :] == [
        str(number) for number in range(FIRST + 20, FIRST + 120)
    ]


# ---- numbers restart -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "frame"), [(DEPTHS, depth_frame), (TRADES, trade_frame)])
@pytest.mark.parametrize("first", [1, 5_000])
def test_renumbered_while_redis_is_unavailable_continues_behind_one_gap(
    name: str, frame: Callable[..., str], first: int
) -> None:
    core = CoreSubject(name)
    market = Market(core, frame, 20_000)
    market.send(*range(FIRST, FIRST + 10))
    core.publish()

    market.send(*range(FIRST + 10, FIRST + 300), *range(first, first + 400))
    core.now_us += 40 * SECOND_US
    settle_down(core)

    assert core.redis.numbers(name) == [
        "gap - start",
        *map(str, range(FIRST, FIRST + 300)),
        "gap - renumbered",
        *map(str, range(first, first + 400)),
    ]
    assert core.queue(name).bytes == 0


def test_renumbered_messages_out_of_order_are_put_in_order_behind_the_old_ones() -> None:
    core = CoreSubject(DEPTHS)
    market = Market(core, depth_frame)
    market.send(FIRST, FIRST + 1, 6, 7, 5, 4, 8)

    assert core.waiting(DEPTHS) == [("A", number) for number in (FIRST, FIRST + 1, 4, 5, 6, 7, 8)]


def test_renumbered_though_the_streams_time_is_ahead_loses_no_message() -> None:
    """The engine's clock stepped back by 4 ms shortly before."""
    core = CoreSubject(DEPTHS)
    core.receive(depth(FIRST))
    core.publish()
    core.receive(depth(FIRST + 1, at_us=NOW_US + 5_000))
    core.receive(depth(FIRST + 2, at_us=NOW_US + 1_000))
    for number in range(1, 100):
        core.now_us = NOW_US + 1_000 + number * 1_000
        core.receive(depth(number, at_us=core.now_us))
    core.now_us += 40 * SECOND_US
    core.publish()
    core.receive(depth(100, at_us=core.now_us))
    settle_down(core)

    assert core.redis.numbers(DEPTHS)[-101:] == [
        "gap - renumbered",
        *map(str, range(1, 101)),
    ]


@pytest.mark.parametrize("checkpoint", [0, 5, 30, 45])
@pytest.mark.parametrize("first", [1, FIRST - 100])
@pytest.mark.parametrize("is_redis_there", [True, False])
def test_renumbered_stream_received_again_after_a_kill_has_nothing_twice(
    checkpoint: int, first: int, is_redis_there: bool
) -> None:
    """Redis is available while the journal is read, or only afterwards."""
    core, market = renumbered(first)
    before = core.redis.numbers(DEPTHS)

    confirmed = {DEPTHS: core.redis.last(DEPTHS)} if checkpoint % 2 else {}
    again = received_again(market, ResumePoints(checkpoint, 1_000, confirmed), is_redis_there)

    assert again.redis.numbers(DEPTHS) == before


def test_renumbered_stream_received_again_when_retention_took_some_has_nothing_twice() -> None:
    core, market = renumbered(FIRST - 100)
    core.redis.trim(DEPTHS, 40)
    before = core.redis.numbers(DEPTHS)
    assert str(FIRST + 15) in before
    assert str(FIRST) not in before

    again = received_again(market, ResumePoints(0, 1_000), is_redis_there=True)

    assert again.redis.numbers(DEPTHS) == before


@pytest.mark.parametrize("is_redis_there", [True, False])
def test_renumbered_or_not_missing_numbers_after_a_time_ahead_are_marked(
    is_redis_there: bool,
) -> None:
    """One message was 50 minutes ahead, so later messages seem older than the stream's end."""
    core = CoreSubject(DEPTHS)
    market = Market(core, depth_frame, 500_000)
    market.send(FIRST)
    market.send_at(3_000 * SECOND_US, FIRST + 1)
    market.send(FIRST + 2)
    core.publish()
    market.send(*range(FIRST + 5, FIRST + 9))  # not published before the kill

    again = received_again(market, ResumePoints(0, 1_000), is_redis_there)

    assert again.redis.numbers(DEPTHS)[1:] == [
        *map(str, range(FIRST, FIRST + 3)),
        f"gap {FIRST + 3}-{FIRST + 4} skipped",
        *map(str, range(FIRST + 5, FIRST + 9)),
    ]


def renumbered(first: int) -> tuple[CoreSubject, Market]:
    """A stream whose numbers restarted at `first`."""
    core = CoreSubject(DEPTHS)
    market = Market(core, depth_frame, 500_000)
    for number in (*range(FIRST, FIRST + 20), *range(first, first + 30)):
        market.send(number)
        core.publish()
    assert core.redis.numbers(DEPTHS).count("gap - renumbered") == 1
    return core, market


def received_again(market: Market, resume: ResumePoints, is_redis_there: bool) -> CoreSubject:
    """Another process's core, after it has read the journal from `resume` and settled."""
    again = CoreSubject(DEPTHS, redis=market.core.redis, resume=resume, hold_us=2 * SECOND_US)
    market.replay(again, resume.position)
    if is_redis_there:
        again.publish()
    again.catch_up()
    settle_down(again)
    return again


def test_renumbered_by_another_bridge_first_is_not_renumbered_again() -> None:
    redis = MemoryServer()
    bridges = [CoreSubject(DEPTHS, redis=redis) for _ in range(2)]
    for number in (*range(FIRST, FIRST + 20), *range(1, 61)):
        for bridge in bridges:
            bridge.now_us += 200_000
            bridge.receive(depth(number, at_us=bridge.now_us))
            bridge.publish()
    for bridge in bridges:
        settle_down(bridge)

    assert redis.numbers(DEPTHS) == [
        "gap - start",
        *map(str, range(FIRST, FIRST + 20)),
        "gap - renumbered",
        *map(str, range(1, 61)),
    ]


def test_renumbered_by_another_bridge_drops_pending_entries_of_the_old_numbers() -> None:
    """A bridge that was suspended while its peer continued resumes with old messages."""
    redis = MemoryServer()
    first, second = (CoreSubject(DEPTHS, redis=redis) for _ in range(2))
    markets = [Market(first, depth_frame, 200_000), Market(second, depth_frame, 200_000)]
    for market in markets:
        market.send(*range(FIRST, FIRST + 5))
    first.publish()
    second.publish()
    markets[0].send(*range(FIRST + 5, FIRST + 10), *range(1, 60))
    for _ in range(10):
        first.now_us += SECOND_US
        first.publish()
        markets[0].send(60)
        first.publish()
    before = redis.numbers(DEPTHS)
    assert "gap - renumbered" in before

    markets[1].send(*range(FIRST + 10, FIRST + 20))
    settle_down(second)

    assert redis.numbers(DEPTHS) == before
    assert second.queue(DEPTHS).counters.duplicates == 10 + 5


def test_renumbered_gap_waits_for_three_messages_and_five_seconds() -> None:
    core = CoreSubject(DEPTHS)
    market = Market(core, depth_frame, RENUMBER_AFTER_US // 5)
    for number in (FIRST, 1, 2, 3, 4, 5):
        market.send(number)
        core.publish()
    assert "gap - renumbered" not in core.redis.numbers(DEPTHS)

    market.send(6)
    core.publish()

    assert core.redis.numbers(DEPTHS)[-7:] == ["gap - renumbered", *map(str, range(1, 7))]


# ---- states --------------------------------------------------------------------------------------


def test_renumbered_states_are_recognised_by_their_time_and_none_is_dropped() -> None:
    core = CoreSubject(BOOK_TICKERS)
    for number in (*range(FIRST, FIRST + 20), *range(1, 60)):
        core.now_us += 100_000
        core.receive(book_ticker(number, core.now_us))
        core.publish()

    stored = [entry["update_id"] for entry in core.redis.entries(BOOK_TICKERS)]
    assert stored == [str(n) for n in (*range(FIRST, FIRST + 20), *range(1, 60))]
    assert core.queue(BOOK_TICKERS).counters.late == 0


def test_renumbered_states_without_later_times_are_late_for_five_seconds_and_marked() -> None:
    """The new numbers are only a little lower, and their times not later for a while."""
    core = CoreSubject(BOOK_TICKERS)
    core.receive(book_ticker(FIRST, NOW_US + 3_000_000_000))  # the engine's clock was 50 min ahead
    for number in range(FIRST - 500, FIRST - 430):
        core.now_us += 100_000
        core.receive(book_ticker(number, core.now_us))
    core.publish()

    kinds = [entry["type"] for entry in core.redis.entries(BOOK_TICKERS)]
    assert kinds == ["bookTicker", "gap", *["bookTicker"] * 20]
    gap = core.redis.entries(BOOK_TICKERS)[1]
    assert (gap["cause"], gap["from_us"], gap["to_us"]) == (
        "renumbered",
        str(NOW_US + 100_000),
        str(NOW_US + 5_000_000),
    )


def test_renumbered_states_received_again_after_a_kill_are_there_once() -> None:
    core = CoreSubject(BOOK_TICKERS)
    market = Market(core, lambda number, at_us: book_ticker(number, at_us), 100_000)
    for number in (*range(FIRST, FIRST + 20), *range(1, 60)):
        market.send(number)
        core.publish()
    before = core.redis.entries(BOOK_TICKERS)

    again = CoreSubject(BOOK_TICKERS, redis=core.redis, resume=ResumePoints(0, 1_000))
    market.replay(again, 0)
    again.publish()
    again.catch_up()

    assert again.redis.entries(BOOK_TICKERS) == before
