"""Rate limits of requests, without sockets; tests with a loop use short real times."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.feed.limits import Gate, RateLimiter, Urgency, Window, retry_after_s
from bridge.feed.rest import A_MINUTE_S, HISTORICAL_A_MINUTE
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Exchange, Publish


def new_window(limit: int, span_s: float) -> Window:
    return Window(limit, span_s, Backoff(1.0, 60.0, random.Random(1)))


@given(
    st.integers(1, 30),
    st.lists(st.floats(0, 20), min_size=1, max_size=200),
)
def test_window_never_has_more_than_its_limit_in_any_span(limit: int, waits: list[float]) -> None:
    window, now_s, taken = new_window(limit, 60.0), 0.0, []
    for wait_s in waits:
        now_s = max(now_s + wait_s, window.free_at_s())
        window.take(now_s)
        taken.append(now_s)

    for first, beyond in zip(taken, taken[limit:], strict=False):
        assert beyond - first > 59.999


def test_window_of_history_lets_fifty_requests_through_before_their_trades_become_gaps() -> None:
    history, now_s = new_window(HISTORICAL_A_MINUTE, A_MINUTE_S), 0.0
    for _ in range(50):
        now_s = max(now_s, history.free_at_s())
        history.take(now_s)

    assert now_s + Exchange().rest_timeout_s < Publish().recover_s


def test_closed_window_lets_nothing_pass_before_its_time() -> None:
    window = new_window(10, 60.0)
    window.close(0.0, 17.0)
    window.close(0.0, 9.0)

    assert window.free_at_s() == 17.0


async def test_gate_lets_the_most_urgent_go_first() -> None:
    gate, window, gone = Gate(at_once=1), new_window(100, 60.0), []

    async def ask(name: str, urgency: Urgency) -> None:
        async with gate.acquire(urgency, [window]):
            gone.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks, gate.acquire(Urgency.OTHER, [window]):
        for name, urgency in (
            ("markets", Urgency.OTHER),
            ("trades", Urgency.TRADES),
            ("depth", Urgency.DEPTH),
            ("orders", Urgency.ACCOUNT),
            ("more depth", Urgency.DEPTH),
        ):
            tasks.create_task(ask(name, urgency))
        await asyncio.sleep(0)
        assert gone == []

    assert gone == ["orders", "depth", "more depth", "trades", "markets"]


async def test_full_narrow_window_holds_up_no_other_request() -> None:
    gate, wide, narrow = Gate(), new_window(100, 60.0), new_window(1, 0.2)
    loop = asyncio.get_running_loop()
    narrow.take(loop.time())
    began_s, times = loop.time(), {}

    async def ask(name: str, urgency: Urgency, windows: list[Window]) -> None:
        async with gate.acquire(urgency, windows):
            times[name] = loop.time() - began_s

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask("trades", Urgency.ACCOUNT, [wide, narrow]))
        tasks.create_task(ask("depth", Urgency.OTHER, [wide]))

    assert times["depth"] < times["trades"]
    assert times["trades"] == pytest.approx(0.2, abs=0.19)


async def test_request_that_gives_up_waiting_leaves_no_trace() -> None:
    gate, window = Gate(at_once=1), new_window(100, 60.0)
    async with gate.acquire(Urgency.OTHER, [window]):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), gate.acquire(Urgency.DEPTH, [window]):
                raise AssertionError("the gate must not open")

    async with asyncio.timeout(1), gate.acquire(Urgency.TRADES, [window]):
        pass


def test_rate_limiter_allows_a_burst_and_spaces_later_requests() -> None:
    limiter = RateLimiter(per_second=2, burst=3)

    assert [limiter.take(100.0) for _ in range(6)] == [100, 100, 100, 100.5, 101, 101.5]


def test_rate_limiter_allows_a_burst_again_after_a_pause() -> None:
    limiter = RateLimiter(per_second=1, burst=2)
    for _ in range(5):
        limiter.take(100.0)

    assert [limiter.take(200.0) for _ in range(3)] == [200, 200, 201]


def test_held_rate_limiter_allows_none_before_its_time_and_spaces_requests_after_it() -> None:
    limiter = RateLimiter(per_second=1, burst=3)
    limiter.hold(130.0)

    assert [limiter.take(100.0) for _ in range(3)] == [130, 131, 132]


async def test_those_that_wait_when_a_rate_limiter_is_held_go_one_by_one_after_it() -> None:
    loop = asyncio.get_running_loop()
    limiter, gone = RateLimiter(20, 1), []

    async def go() -> None:
        await limiter.acquire()
        gone.append(loop.time())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(go())
        await asyncio.sleep(0.01)
        until_s = loop.time() + 0.3
        limiter.hold(until_s)

    assert len(gone) == 4
    for number, gone_s in enumerate(gone[1:]):
        assert gone_s >= until_s + 0.05 * number - 0.01


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Thu, 01 Jan 2015 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2015 00:00:00", None),
        ("-3", None),
        ("9" * 12, None),
        ("9" * 5_000, None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
        ("Fri, 31 Dec 2099 23:59:59 +99999999999999999999", None),
        ("Fri, 31 Dec 2099 99999999999999999999:59:59 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(value: str, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds
