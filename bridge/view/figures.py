"""Numbers formatted for people: rates, counts, ages, milliseconds, curves (pure)."""

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def rate(per_second: float | None) -> str:
    """`0.3`, `42.1`, `1,204`; empty where unknown."""
    if per_second is None:
        return ""
    if per_second == 0:
        return "·"
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}"


def count(number: int) -> str:
    """`1,204`, and from ten million on `12.3M`."""
    return f"{number:,}" if number < 10_000_000 else f"{number / 1e6:,.1f}M"


def age(microseconds: int | None) -> str:
    """`0.1s`, `12s`, `3m`, `2h`, `4d`."""
    if microseconds is None:
        return "never"
    seconds = microseconds / 1e6
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for unit, size, limit in (("s", 1, 100), ("m", 60, 6000), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def milliseconds(value: float | None) -> str:
    """`0.6ms`, `12ms`, `1.2s`; a dash where nothing was measured."""
    if value is None:
        return "–"
    if abs(value) < 9.95:
        return f"{value:.1f}ms"
    return f"{value:,.0f}ms" if abs(value) < 1000 else f"{value / 1000:,.1f}s"


def curve(values: Sequence[float], width: int) -> str:
    """The newest values as a line of bars, scaled to the highest one."""
    newest = values[-width:] if width > 0 else []
    highest = max(newest, default=0.0)
    if highest <= 0:
        return ""
    steps = len(_BARS) - 1
    return "".join(_BARS[round(value / highest * steps)] for value in newest)
