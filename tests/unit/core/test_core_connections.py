"""Streams received over several connections: each message is queued once."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import frames
from tests.support.core_subject import (
    BALANCES,
    DEPTHS,
    KLINES,
    NOW_US,
    ORDERS,
    TICKERS,
    TRADES,
    CoreSubject,
    balance,
    changed,
)
from tests.support.core_subject import trade as trade_frame

HOLD_US = 2_000_000


def subject(connections: int = 2) -> CoreSubject:
    """A core whose connections are all answered and have received a tick."""
    core = CoreSubject(
        TRADES, DEPTHS, BALANCES, TICKERS, KLINES, connections=connections, hold_us=HOLD_US
    )
    for number in range(1, connections + 1):
        core.answer(number)
        core.tick(number, NOW_US - 1_000_000)
    return core


def trade(number: int) -> str:
    return trade_frame(number, NOW_US + number * 1000)


@st.composite
def receptions(draw: st.DrawFn) -> tuple[list[int], list[list[int]], list[int]]:
    """The messages sent (equal numbers are equal messages), those that each of two connections
    received, and the order of receipt as connection indexes.
    """
    sent = sorted(draw(st.lists(st.integers(1, 30), min_size=1, max_size=60)))
    received = [[number for number in sent if not draw(st.booleans())] for _ in range(2)]
    turns = draw(st.permutations([0] * len(received[0]) + [1] * len(received[1])))
    return sent, received, list(turns)


def receive(
    core: CoreSubject,
    received: list[list[int]],
    turns: Sequence[int],
    frame: Callable[[int], str],
) -> None:
    waiting = [list(each) for each in received]
    for turn in turns:
        core.receive(frame(waiting[turn].pop(0)), turn + 1)
        core.now_us += 1


@given(receptions())
def test_core_sequenced_messages_of_two_connections_wait_once_and_in_order(
    drawn: tuple[list[int], list[list[int]], list[int]],
) -> None:
    _, received, _ = drawn
    received = [sorted(set(each)) for each in received]
    turns = [turn for turn, each in enumerate(received) for _ in each]
    core = subject()

    receive(core, received, turns, trade)

    union = sorted(set(received[0]) | set(received[1]))
    assert core.waiting(TRADES) == [("A", number) for number in union]
    assert core.queue(TRADES).counters.repeated == len(set(received[0]) & set(received[1]))


@given(receptions())
def test_core_events_of_two_connections_wait_as_often_as_one_of_them_received_them(
    drawn: tuple[list[int], list[list[int]], list[int]],
) -> None:
    _, received, turns = drawn
    core = subject()

    receive(core, received, turns, balance)

    waiting = Counter(int(named["available"]) for named in core.named(BALANCES))
    assert waiting == Counter(received[0]) | Counter(received[1])


def test_core_sample_that_another_server_took_a_moment_later_is_repeated() -> None:
    core = subject()
    for second in range(3):
        for connection, late_us in ((1, 0), (2, 400_000)):
            core.tick(connection, NOW_US + second * 1_000_000 + late_us)

    assert len(core.queue(TICKERS).slots) == 4
    assert core.queue(TICKERS).counters.repeated == 4  # 3 here, 1 in subject()


def test_core_sample_continues_over_the_connection_that_is_left() -> None:
    core = subject()
    core.tick(1, NOW_US)
    core.tick(2, NOW_US + 400_000)
    core.lose(1)
    core.tick(2, NOW_US + 1_400_000)

    assert len(core.queue(TICKERS).slots) == 3


def test_core_candle_emitted_at_two_times_is_one() -> None:
    core = subject()
    core.receive(changed(frames.KLINE_EMPTY, E=NOW_US), 1)
    core.receive(changed(frames.KLINE_EMPTY, E=NOW_US + 5_000), 2)

    assert len(core.queue(KLINES).slots) == 1


def test_core_end_of_one_of_two_connections_leaves_no_mark_in_any_stream() -> None:
    core = subject()
    for second in range(1, 6):
        for connection in (1, 2):
            core.now_us = NOW_US + second * 1_000_000
            core.tick(connection, core.now_us)
    core.receive(trade(1), 1)

    core.lose(1)
    core.receive(trade(3), 2)

    assert not [slot for slot in core.slots() if slot.entry.is_gap]
    assert core.queue(TRADES).slots[-1].cause is None


# ---- how long received messages are remembered ---------------------------------------------------


def rotate(core: CoreSubject, old: int, new: int) -> None:
    """Replace connection `old` by connection `new`."""
    core.open(new)
    core.answer(new)
    core.receive(trade(1), new)
    core.lose(old)


def remembered(core: CoreSubject) -> dict[str, int]:
    queues = core.core.queues.items()
    windows = {name: queue._window for name, queue in queues}  # type: ignore[attr-defined]
    return {name: n for name, window in windows.items() if (n := len(window._received))}


def test_core_remembers_nothing_a_minute_after_a_connection_replaced_another() -> None:
    core = subject(connections=1)
    rotate(core, 1, 2)
    for second in range(1, 61):
        core.now_us = NOW_US + second * 1_000_000
        core.receive(trade(second + 1), 2)
        core.receive(balance(second), 2)
    assert remembered(core) == {TRADES: 61, BALANCES: 60}

    core.now_us += 1_000_000
    core.receive(trade(62), 2)

    assert remembered(core) == {}
    core.now_us += 1_000_000
    core.receive(trade(63), 2)
    assert remembered(core) == {}


def test_core_remembers_messages_of_two_lasting_connections_for_a_minute() -> None:
    core = subject()
    for second in range(300):
        core.now_us = NOW_US + second * 1_000_000
        core.receive(trade(second + 1), 1)

    assert remembered(core)[TRADES] == 61


def test_core_shows_repeated_messages_of_a_second_replacement_like_those_of_the_first() -> None:
    core = subject(connections=1)
    rotate(core, 1, 2)
    core.now_us = NOW_US + 1_800_000_000
    core.receive(trade(2), 2)
    core.open(3)
    core.receive(trade(3), 2)
    core.receive(trade(3), 3)
    core.lose(2)
    core.now_us += 30_000_000
    core.receive(trade(4), 3)
    core.receive(trade(3), 3)

    assert core.waiting(TRADES) == [("A", number) for number in (1, 2, 3, 4)]
    assert core.queue(TRADES).counters.repeated == 2


@pytest.mark.parametrize("step_us", [90_000_000, 3_500_000_000, -3_500_000_000])
def test_core_event_of_two_connections_is_one_though_our_clock_was_set_in_between(
    step_us: int,
) -> None:
    core = CoreSubject(ORDERS, connections=2)
    frame = changed(frames.ORDER_ACCEPTED, T=NOW_US - 1_000, E=NOW_US - 900)
    core.receive(frame, 1)

    core.now_us += step_us
    core.receive(frame, 2)

    assert len(core.queue(ORDERS).slots) == 1
