"""The 200, 600 and 1000 ms depth streams: a market's updates, collected in fixed windows.

A window has the last quantity of every level changed in it and the ids it covers, so `U` follows
the last `u`. Cut once for each market, so every subscriber gets the same windows. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.events import Depth, Levels
from simulator.listing import Listing

WINDOWS_MS = (200, 600, 1000)


@dataclass(slots=True)
class _Open:
    """The window that is being filled."""

    first_id: int
    last_id: int = 0
    engine_us: int = 0
    asks: dict[str, str] = field(default_factory=dict)
    bids: dict[str, str] = field(default_factory=dict)


class Windows:
    """The open windows of one market."""

    def __init__(self, listing: Listing) -> None:
        self._symbol = listing.symbol
        self._open: dict[int, _Open | None] = dict.fromkeys(WINDOWS_MS)
        self._streams = {ms: (f"depth.{ms}ms.{listing.symbol}",) for ms in WINDOWS_MS}

    def note(self, engine_us: int, update_id: int, asks: Levels, bids: Levels) -> None:
        """Add one update to every window."""
        for window_ms, window in self._open.items():
            if window is None:
                window = self._open[window_ms] = _Open(first_id=update_id)
            window.last_id = update_id
            window.engine_us = engine_us
            window.asks.update(asks)
            window.bids.update(bids)

    def cut(self, window_ms: int, event_us: int) -> Depth | None:
        """Close a window: its event, or None without changes."""
        window = self._open[window_ms]
        if window is None:
            return None
        self._open[window_ms] = None
        return Depth(
            self._streams[window_ms],
            event_us,
            window.engine_us,
            self._symbol,
            window.first_id,
            window.last_id,
            sorted(window.asks.items(), key=_price),
            sorted(window.bids.items(), key=_price),
        )


def _price(row: tuple[str, str]) -> float:
    return float(row[0])
