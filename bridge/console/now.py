"""The page Now: the verdict, the bridges, and every stream with its rate (pure).

A client gets the whole page once (`whole`), then the changes (`take`). Ages are sent as the moment
that they count from, so that a quiet stream is not sent again each second.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.core.counters import StreamCounters
from bridge.view.verdict import judge
from bridge.view.view_model import BridgeRow, State, StreamRow, ViewModel

SLOT_US = 2_000_000  # a point of a sparkline
SLOTS = 60
CURVE = 300  # points of the total rate, one for each poll

Row = list[Any]  # rate, moment of the newest entry, entries, marks, is failing, text


@dataclass(slots=True)
class NowPage:
    """The state shown last, and the rates of the last two minutes."""

    redis: str
    _rows: dict[str, Row] = field(default_factory=dict)
    _sparks: dict[str, deque[float]] = field(default_factory=dict)
    _slot: int = 0
    _curve: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=CURVE))
    _head: dict[str, Any] = field(default_factory=dict)

    def take(self, view_model: ViewModel) -> dict[str, Any]:
        """Set the next view model; returns the changes since the previous one."""
        rows = {stream.name: _row(stream, view_model.now_us) for stream in view_model.streams}
        before, self._rows = self._rows, rows
        if view_model.rate is not None:
            self._curve.append((view_model.now_us, round(view_model.rate, 1)))
        self._spark(view_model)
        self._head = _about(view_model)
        return self._head | {
            "curve": [list(self._curve)[-1]] if self._curve else [],
            "rows": {name: row for name, row in rows.items() if row != before.get(name)},
            "removed": [name for name in before if name not in rows],
            "slot": self._slot,
        }

    def whole(self) -> dict[str, Any]:
        """The whole page, for a new client."""
        return self._head | {
            "redis": self.redis,
            "curve": list(self._curve),
            "rows": self._rows,
            "sparks": {name: list(values) for name, values in self._sparks.items()},
            "slot": self._slot,
        }

    def _spark(self, view_model: ViewModel) -> None:
        """Add a point with the current rate for each slot since the last poll."""
        slot = view_model.now_us // SLOT_US
        missed = min(slot - self._slot, SLOTS) if self._slot else 1
        self._slot = slot
        if missed <= 0:
            return
        sparks = {}
        for stream in view_model.streams:
            values = self._sparks.get(stream.name) or deque(maxlen=SLOTS)
            values.extend([round(stream.rate or 0.0, 1)] * missed)
            sparks[stream.name] = values
        self._sparks = sparks


def header(view_model: ViewModel) -> dict[str, Any]:
    """The header of every page: the verdict in one line."""
    verdict = judge(view_model)
    return {
        "level": verdict.level.value,
        "text": _sentence(verdict.text),
        "now_us": view_model.now_us,
    }


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def unavailable(sentence: str) -> dict[str, Any]:
    """The header while Redis cannot be read."""
    return {"level": "bad", "text": sentence, "now_us": None}


def _about(view_model: ViewModel) -> dict[str, Any]:
    verdict = judge(view_model)
    whole = sum((each.status.counters for each in view_model.streams), StreamCounters())
    half, most = view_model.receive_ms or (None, None)
    return {
        "now_us": view_model.now_us,
        "verdict": {
            "level": verdict.level.value,
            "text": _sentence(verdict.text),
            "reasons": list(verdict.reasons),
        },
        "bridges": [_bridge(bridge) for bridge in view_model.bridges],
        "rate": view_model.rate,
        "p50_ms": half,
        "p99_ms": most,
        "gaps": view_model.gaps,
        "recovered": view_model.recovered,
        "overflowed": whole.overflowed,
        "quarantined": view_model.quarantined,
        "newest_quarantined": view_model.newest_quarantined,
        "pending": view_model.pending,
    }


def _bridge(bridge: BridgeRow) -> Mapping[str, Any]:
    status = bridge.status
    is_up = bridge.state is State.UP
    return {
        "name": status.instance,
        "state": bridge.state.value,
        "since_us": bridge.since_us,
        "exchange": status.exchange,
        "version": status.version,
        "turn": bridge.turn,
        "process": f"{status.pid} on {status.host}",
        "confirmed": sum(each.confirmed for each in status.connections) if is_up else 0,
        "wanted": sum(each.wanted for each in status.connections),
        "connections": [
            {"name": each.name, "is_up": each.connected and is_up} for each in status.connections
        ],
    }


def _row(stream: StreamRow, now_us: int) -> Row:
    at_us = None if stream.age_us is None else now_us - stream.age_us
    rate = None if stream.rate is None else round(stream.rate, 1)
    marks: Sequence[str] = stream.marks
    return [rate, at_us, stream.entries, list(marks), stream.is_failing, stream.text]
