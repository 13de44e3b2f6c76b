"""An active fault: its scope, its remaining count, and what it has affected. Pure."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from simulator.faults.commands import OPEN, Command

NAMED_IDS = 1000  # ids of a stream that are listed; beyond, only the first and last are given


@dataclass(slots=True)
class Touched:
    """What a fault did to one stream: the number of frames, their ids (trade or update ids) where
    they have any, and the range of their event times.
    """

    frames: int = 0
    ids: list[int] = field(default_factory=list)
    first: int | None = None
    last: int | None = None
    from_us: int | None = None
    to_us: int | None = None

    def add(self, frame: bytes) -> None:
        data: dict[str, Any] = json.loads(frame).get("data", {})
        self.frames += 1
        event_us, number = data.get("E"), data.get("t") if "t" in data else data.get("u")
        if isinstance(event_us, int):
            self.from_us = event_us if self.from_us is None else min(self.from_us, event_us)
            self.to_us = event_us if self.to_us is None else max(self.to_us, event_us)
        if isinstance(number, int):
            self.first = number if self.first is None else min(self.first, number)
            self.last = number if self.last is None else max(self.last, number)
            if len(self.ids) < NAMED_IDS and number not in self.ids[-1:]:
                self.ids.append(number)

    def body(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in shown.items() if value is not None}


@dataclass(slots=True)
class Running:
    """One active fault. Times are engine time."""

    number: int
    command: Command
    chance: random.Random
    began_us: int
    until_us: int | None
    open: frozenset[int] = frozenset()  # the connections that existed when it began
    ended_us: int | None = None
    touched: int = 0
    streams: dict[str, Touched] = field(default_factory=dict)
    _fits: dict[str, bool] = field(default_factory=dict)

    def fits(self, name: str) -> bool:
        """Whether a stream's name (or a path) matches."""
        known = self._fits.get(name)
        if known is None:
            own = self.command
            pattern = str(getattr(own, "stream", None) or getattr(own, "path", "*"))
            known = self._fits[name] = fnmatchcase(name, pattern)
        return known

    def reaches(self, connection: int) -> bool:
        """Whether it applies to a connection."""
        chosen = getattr(self.command, "connection", None)
        if chosen == OPEN:
            return connection in self.open
        return chosen is None or chosen == connection

    def strikes(self) -> bool:
        """Whether it affects this frame or request, by chance and count; counts it if so."""
        if self.spent:
            return False
        share = getattr(self.command, "share", 1.0)
        if share < 1.0 and self.chance.random() >= share:
            return False
        self.touched += 1
        return True

    @property
    def spent(self) -> bool:
        """Whether it has reached its `count`, or has ended."""
        return self.ended_us is not None or self._is_exhausted

    @property
    def is_called_off(self) -> bool:
        """Whether it has ended before it reached its `count`: it may release what it holds."""
        return self.ended_us is not None and not self._is_exhausted

    @property
    def _is_exhausted(self) -> bool:
        count = getattr(self.command, "count", None)
        return count is not None and self.touched >= count

    def note(self, stream: str, frame: bytes) -> None:
        """Record an affected frame."""
        if stream not in self.streams:
            self.streams[stream] = Touched()
        self.streams[stream].add(frame)

    def body(self) -> dict[str, Any]:
        """The fault as JSON, for the admin endpoint and the ledger."""
        return {
            "number": self.number,
            "command": self.command.model_dump(exclude_unset=True, mode="json"),
            "began_us": self.began_us,
            "ended_us": self.ended_us,
            "touched": self.touched,
            "streams": {name: touched.body() for name, touched in self.streams.items()},
        }
