"""Timers: methods called at full minutes, hours, …, whether or not entries arrive (pure)."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard, TypeVar

from bridge.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DAY_MS = 86_400_000
_LEAST_MS, _MOST_MS = 1000, _DAY_MS
_MARK = "_every_ms"


class Tick(NamedTuple):
    """The due time of a timer, µs since 1970 by Redis' clock, and its stream: empty in shared mode,
    the join key in joined mode."""

    stream: str
    at_us: int


def every(interval: str | float) -> Callable[[F], F]:
    """Call this method of a consumer at each multiple of `interval`: "30s", "1m", "1h", "1d" (UTC),
    or seconds.

        @every("1m")
        def summary(self, tick: Tick, results: Results) -> None: ...

    Called once per group in shared mode, per stream in ordered mode, per key in joined mode; in the
    latter two with `state`, after all entries that were readable by then. Its writes are applied
    once, and the last due time is kept in Redis. After missed due times (no worker was running,
    say) the timer is called only for the last one. Sync or async, within `time_limit_s`; a failed
    call is retried, with growing pauses. Raises ConfigError for another interval.
    """
    interval_ms = _milliseconds(interval)

    def mark(method: F) -> F:
        setattr(method, _MARK, interval_ms)
        return method

    return mark


def timers_of(kind: type[Any]) -> Mapping[str, int]:
    """The timers of a consumer: method name → interval, ms."""
    marks = {name: getattr(getattr(kind, name, None), _MARK, None) for name in dir(kind)}
    return {name: interval_ms for name, interval_ms in marks.items() if interval_ms is not None}


def tick_ms(now_ms: int, interval_ms: int) -> int:
    """The last due time of a timer up to `now_ms`, ms."""
    return now_ms // interval_ms * interval_ms


def last_tick_ms(saved_ms: int | None, now_ms: int) -> int | None:
    """The last due time as saved in Redis, ms; None where it is unknown. A time more than a day
    ahead counts as unknown, since the timer would not run until then.
    """
    return saved_ms if saved_ms is not None and saved_ms <= now_ms + _DAY_MS else None


def _milliseconds(interval: str | float) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", interval) if isinstance(interval, str) else None
    if match:
        milliseconds = int(match[1]) * _UNITS_MS[match[2]]
    elif _is_number(interval) and _LEAST_MS <= interval * 1000 <= _MOST_MS:
        milliseconds = round(interval * 1000)
    else:
        milliseconds = 0
    if not _LEAST_MS <= milliseconds <= _MOST_MS:
        raise ConfigError(f"every({interval!r}): write 1s to 1d, such as '30s', '1m' or '1h'")
    return milliseconds


def _is_number(interval: str | float) -> TypeGuard[float]:
    return isinstance(interval, int | float) and not isinstance(interval, bool)
