"""Timers: methods that are called at full minutes, hours, …, though no entry comes (pure)."""

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
    """When a timer was due, µs since 1970 by Redis' clock, and of which stream it is: in shared
    mode of none, in joined mode of those of a key."""

    stream: str
    at_us: int


def every(interval: str | float) -> Callable[[F], F]:
    """Call this method of a consumer at each multiple of `interval`: "30s", "1m", "1h", "1d" (UTC),
    or seconds.

        @every("1m")
        def summary(self, tick: Tick, results: Results) -> None: ...

    Once a group in shared mode, once a stream in ordered mode, once a key in joined mode; there
    with `state`, behind all entries that were to be read by then. What it writes counts once, and
    the time of the last one is kept in Redis. Of times that have passed meanwhile, since no worker
    was running say, only the last one is made up for. Sync or async, within `time_limit_s`; where
    one fails it is tried again, with growing pauses. Raises ConfigError for another interval.
    """
    interval_ms = _milliseconds(interval)

    def mark(method: F) -> F:
        setattr(method, _MARK, interval_ms)
        return method

    return mark


def timers_of(kind: type[Any]) -> Mapping[str, int]:
    """By the name of each timer of a consumer, its interval in ms."""
    found = {name: getattr(getattr(kind, name, None), _MARK, None) for name in dir(kind)}
    return {name: interval_ms for name, interval_ms in found.items() if interval_ms is not None}


def tick_ms(now_ms: int, interval_ms: int) -> int:
    """The last time, ms, at which a timer was due."""
    return now_ms // interval_ms * interval_ms


def last_tick_ms(saved_ms: int | None, now_ms: int) -> int | None:
    """When a timer was due for the last time, ms, as Redis has it; None where that is not known. A
    time to come is none of ours: the timer would be silent until then.
    """
    return saved_ms if saved_ms is not None and saved_ms <= now_ms + _DAY_MS else None


def _milliseconds(interval: str | float) -> int:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", interval) if isinstance(interval, str) else None
    if found:
        milliseconds = int(found[1]) * _UNITS_MS[found[2]]
    elif _is_number(interval) and _LEAST_MS <= interval * 1000 <= _MOST_MS:
        milliseconds = round(interval * 1000)
    else:
        milliseconds = 0
    if not _LEAST_MS <= milliseconds <= _MOST_MS:
        raise ConfigError(f"every({interval!r}): write 1s to 1d, such as '30s', '1m' or '1h'")
    return milliseconds


def _is_number(interval: str | float) -> TypeGuard[float]:
    return isinstance(interval, int | float) and not isinstance(interval, bool)
