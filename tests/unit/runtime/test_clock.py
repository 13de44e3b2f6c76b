"""The wall clock and the steady clock of a process."""

import time

import pytest

from bridge.runtime.clock import SystemClock

HOUR_NS = 3_600_000_000_000


@pytest.mark.parametrize("step_ns", [HOUR_NS, -HOUR_NS, -90_000_000_000, 5_000_000_000])
def test_the_steady_clock_continues_where_the_wall_clock_is_set(
    monkeypatch: pytest.MonkeyPatch, step_ns: int
) -> None:
    clock = SystemClock()
    before_us, wall_us = clock.now_us(), clock.wall_us()
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + step_ns)

    assert 0 <= clock.now_us() - before_us < 2_000_000
    assert abs(clock.wall_us() - wall_us - step_ns // 1000) < 2_000_000
