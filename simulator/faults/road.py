"""The path of a frame from the exchange to its connections, with the faults on it. Pure.

At most one fault affects a frame on a connection: the one that began first. Without faults, frames
pass directly. Knows neither the meaning of streams, nor sockets, nor how faults begin and end.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from simulator.client import Binary, Client
from simulator.faults.commands import Corrupt, Delay, Drop, Duplicate, Form, Hide, Reorder, Stall
from simulator.faults.commands import Then as StallEnds
from simulator.faults.running import Running

ON_THE_ROAD = (Hide, Drop, Duplicate, Delay, Reorder, Corrupt, Stall)
DEPTH_OF_DEEP = 100_000
SECOND_US = 1_000_000


@dataclass(slots=True)
class Way:
    """The result for one frame: the connections it was sent to (once for each copy), those it was
    withheld from, those that get it later, and the faults involved.
    """

    to: list[int] = field(default_factory=list)
    kept_from: list[int] = field(default_factory=list)
    later: list[int] = field(default_factory=list)
    by: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A frame held for one client until `to_pass` more frames of its stream have passed it."""

    client: Client
    stream: str
    frame: bytes
    fault: int
    to_pass: int = 0
    released: bool = False


class Road:
    """Carries frames. `faults` are the active ones, oldest first."""

    def __init__(self, on_late: Callable[[int, str, bytes], None] = lambda *_: None) -> None:
        self.faults: list[Running] = []
        self.now_us = 0
        self._on_late = on_late
        self._held: list[_Waiting] = []
        self._due: list[tuple[int, int, _Waiting]] = []
        self._count = 0

    @property
    def is_touched(self) -> bool:
        """Whether a frame may be affected by a fault."""
        return bool(self.faults or self._held)

    @property
    def next_us(self) -> int | None:
        """When the next held frame is due."""
        return self._due[0][0] if self._due else None

    def until(self, now_us: int) -> None:
        """Release every frame that is due."""
        self.now_us = max(self.now_us, now_us)
        while self._due and self._due[0][0] <= now_us:
            self._release(heapq.heappop(self._due)[2])

    def carry(self, stream: str, frame: bytes, clients: Iterable[Client]) -> Way:
        """Send a frame to these clients, subject to faults."""
        way = Way()
        found = [fault for fault in self.faults if fault.fits(stream) and not fault.spent]
        listeners = sorted(clients, key=lambda client: client.number)
        hiding = self._hiding(found) if listeners else None
        for client in listeners:
            fault = hiding or self._striking(found, client, stream)
            if fault is None:
                client.push(frame)
                way.to.append(client.number)
                self._pass(client, stream)
            else:
                self._strike(fault, stream, frame, client, way)
        return way

    def ended(self, fault: Running) -> None:
        """Release what an ended fault has held for its whole duration."""
        for waiting in list(self._held):
            if waiting.fault == fault.number and not waiting.to_pass:
                self._release(waiting)

    def _hiding(self, found: list[Running]) -> Running | None:
        """The fault that hides a frame, decided once for all connections; or None."""
        hiding = (fault for fault in found if isinstance(fault.command, Hide))
        return next((fault for fault in hiding if fault.strikes()), None)

    def _striking(self, found: list[Running], client: Client, stream: str) -> Running | None:
        for fault in found:
            if isinstance(fault.command, Hide) or not fault.reaches(client.number):
                continue
            if isinstance(fault.command, Reorder) and self._waits(fault, client, stream):
                continue  # one frame at a time: the next ones are to overtake it
            if fault.strikes():
                return fault
        return None

    def _waits(self, fault: Running, client: Client, stream: str) -> bool:
        return any(
            each.fault == fault.number and each.client is client and each.stream == stream
            for each in self._held
        )

    def _strike(self, fault: Running, stream: str, frame: bytes, client: Client, way: Way) -> None:
        if fault.number not in way.by:
            way.by.append(fault.number)
            fault.note(stream, frame)
        match fault.command:
            case Duplicate(times=times):
                for _ in range(1 + times):
                    client.push(frame)
                    way.to.append(client.number)
            case Corrupt() as corrupt:
                client.push(garbled(frame, corrupt))
                way.kept_from.append(client.number)
            case Delay(delay_s=delay_s):
                self._keep(_Waiting(client, stream, frame, fault.number), delay_s)
                way.later.append(client.number)
            case Reorder(by=by, within_s=within_s):
                waiting = _Waiting(client, stream, frame, fault.number, to_pass=by)
                self._held.append(waiting)
                self._keep(waiting, within_s)
                way.later.append(client.number)
            case Stall(then=StallEnds.LATE):
                self._held.append(_Waiting(client, stream, frame, fault.number))
                way.later.append(client.number)
            case _:
                way.kept_from.append(client.number)

    def _keep(self, waiting: _Waiting, for_s: float) -> None:
        self._count += 1
        due_us = self.now_us + int(for_s * SECOND_US)
        heapq.heappush(self._due, (due_us, self._count, waiting))

    def _pass(self, client: Client, stream: str) -> None:
        """Count a passed frame for the held frames of its stream."""
        for waiting in list(self._held):
            if waiting.client is client and waiting.stream == stream and waiting.to_pass:
                waiting.to_pass -= 1
                if not waiting.to_pass:
                    self._release(waiting)

    def _release(self, waiting: _Waiting) -> None:
        if waiting in self._held:
            self._held.remove(waiting)
        if not waiting.released and not waiting.client.has_ended:
            waiting.client.push(waiting.frame)
            self._on_late(waiting.client.number, waiting.stream, waiting.frame)
        waiting.released = True


def garbled(frame: bytes, command: Corrupt) -> bytes:
    """What is sent instead of a frame."""
    match command.form:
        case Form.GARBAGE:
            return b"\x1b[31m <<" + frame[::-1]
        case Form.BINARY:
            return Binary(frame)
        case Form.INVALID_UTF8:
            return frame[:-2] + b"\xff\xfe" + frame[-2:]
        case Form.TRUNCATED:
            return frame[: len(frame) // 2]
        case Form.DEEP:
            return b'{"data":' + b"[" * DEPTH_OF_DEEP + b"]" * DEPTH_OF_DEEP + b"}"
        case Form.GIANT:
            filler = json.dumps("x" * command.size).encode()
            return frame[:-1] + b',"filler":' + filler + b"}"


def identity(frame: bytes) -> dict[str, Any]:
    """What identifies a frame within its stream: its number, if it has one, and its time."""
    data = json.loads(frame).get("data", {})
    number = data.get("t") if "t" in data else data.get("u")
    return {"id": number, "event_us": data.get("E")}
