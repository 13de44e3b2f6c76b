"""Begins and ends faults, and applies them: to the road, the hub, the engine, or on request of
other parts (handshakes, subscriptions, REST).

All by engine time, which is an argument: the same script and seed do the same at the same moments
of the market. Each beginning and end is passed to `note`, for the ledger. Knows no sockets.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from simulator import frames, rest_bodies
from simulator.client import GOOD_LINE, Client, Ending, Line
from simulator.engine import Engine
from simulator.faults import commands as order
from simulator.faults.commands import Command
from simulator.faults.reading import BadCommand, Scheduled
from simulator.faults.road import ON_THE_ROAD
from simulator.faults.running import Running
from simulator.hub import Hub
from simulator.listing import listing

SECOND_US = 1_000_000
PAST_KEPT = 1000
ONCE = (order.Close, order.ErrorFrame, order.Forget, order.List, order.Delist)
ON_THE_MARKET = (order.Skip, order.List, order.Delist, order.Burst, order.ClockSkew)

Kind = TypeVar("Kind", bound=Command)


class Director:
    """Begins and ends faults. `until` advances its time."""

    def __init__(
        self,
        engine: Engine,
        hub: Hub,
        script: Sequence[Scheduled] = (),
        *,
        is_recording: bool = False,
    ) -> None:
        self._engine = engine
        self._hub = hub
        self._is_recording = is_recording
        self._seed = engine.plan.seed
        self._running: list[Running] = []
        self._past: deque[Running] = deque(maxlen=PAST_KEPT)
        self._queue: list[tuple[int, int, Callable[[], object]]] = []
        self._count = 0
        self._begun = 0
        self.now_us = engine.plan.start_us
        self.schedule(script)

    def note_book(self, symbol: str) -> None:
        """Write the book of a market into the ledger, as the base of the changes that follow."""
        market = self._engine.markets[symbol]
        body = rest_bodies.depth(market, 2**31, self.now_us)
        self._hub.note(self.now_us, {"book": symbol, "u": market.update_id, **body})

    @property
    def next_us(self) -> int | None:
        """The time of the next action here or on the road."""
        times = [self._queue[0][0]] if self._queue else []
        if (road_us := self._hub.road.next_us) is not None:
            times.append(road_us)
        return min(times, default=None)

    def until(self, now_us: int) -> None:
        """Do everything that is due up to a moment."""
        while self._queue and self._queue[0][0] <= now_us:
            at_us, _, act = heapq.heappop(self._queue)
            self._go_to(at_us)
            act()
        self._go_to(now_us)
        self.end_spent()

    def end_spent(self) -> None:
        """End the faults that have reached their `count`."""
        for fault in [fault for fault in self._running if fault.spent]:
            self.end(fault)

    def schedule(self, script: Iterable[Scheduled]) -> None:
        """Schedule these faults, at times counted from now."""
        for scheduled in script:
            at_us = self.now_us + int(scheduled.at_s * SECOND_US)
            self._at(at_us, self._beginner(scheduled.command))

    def begin(self, command: Command) -> Running:
        """Begin a fault now. Raises BadCommand where it is not possible."""
        self.check(command)
        self._begun += 1
        number = self._begun
        for_s = getattr(command, "for_s", None)
        fault = Running(
            number,
            command,
            random.Random(f"{self._seed} fault {number}"),
            self.now_us,
            None if for_s is None else self.now_us + int(for_s * SECOND_US),
            open=frozenset(client.number for client in self._hub.clients),
        )
        self._running.append(fault)
        self._hub.note(self.now_us, {"fault": fault.body(), "state": "began"})
        self._start(fault)
        if isinstance(command, ONCE) or (isinstance(command, order.Skip) and not command.every_s):
            self.end(fault)
        elif fault.until_us is not None:
            self._at(fault.until_us, lambda: self.end(fault))
        return fault

    def end(self, fault: Running) -> None:
        """End a fault; no effect where it has ended already."""
        if fault.ended_us is not None:
            return
        fault.ended_us = self.now_us
        self._running.remove(fault)
        self._past.append(fault)
        self._stop(fault)
        self._hub.note(self.now_us, {"fault": fault.body(), "state": "ended"})

    def end_all(self) -> None:
        for fault in list(self._running):
            self.end(fault)

    def find(self, number: int) -> Running | None:
        """A fault by its number, active or recently ended; else None."""
        known = [*self._past, *self._running]
        return next((fault for fault in known if fault.number == number), None)

    def known(self) -> list[Running]:
        """All active and recently ended faults, in the order of their beginning."""
        return sorted([*self._past, *self._running], key=lambda fault: fault.number)

    # Requests of other parts ----------------------------------------------------------------------

    def welcome(self, client: Client) -> None:
        """Set the line of a new connection."""
        client.line = self._line(client)

    def clock_ms(self) -> int:
        """The exchange's clock: the real one with the offset of a fault."""
        return time.time_ns() // 1_000_000 + self._engine.skew_us // 1000

    def refusal(self) -> Running | None:
        """The fault that refuses this handshake, or None."""
        return self._striking(order.Refuse, lambda fault: True)

    def rejection(self, stream: str) -> bytes | None:
        """The error frame by which a fault rejects a subscription, or None."""
        fault = self._striking(order.Reject, lambda fault: fault.fits(stream))
        if fault is None:
            return None
        command = fault.command
        assert isinstance(command, order.Reject)
        return frames.error(command.code, command.message or _MESSAGES.get(command.code, "Error"))

    def ignores(self, stream: str) -> bool:
        """Whether a fault accepts this subscription and never serves it."""
        return self._striking(order.Ignore, lambda fault: fault.fits(stream)) is not None

    def on_rest(self, kind: type[Kind], path: str) -> Running | None:
        """The fault of a kind that affects this REST request, or None."""
        return self._striking(kind, lambda fault: fault.fits(path))

    def _striking(self, kind: type[Command], fits: Callable[[Running], bool]) -> Running | None:
        for fault in self._running:
            if isinstance(fault.command, kind) and fits(fault) and fault.strikes():
                return fault
        return None

    # Beginning and end of each kind ---------------------------------------------------------------

    def _start(self, fault: Running) -> None:
        match fault.command:
            case order.Close(how=how, code=code, reason=reason):
                for client in self._reached(fault):
                    client.end(Ending(how, code, reason))
            case order.ErrorFrame(code=code, message=message):
                for client in self._reached(fault):
                    client.push(frames.error(code, message))
            case order.Forget():
                for client in self._reached(fault):
                    self._hub.forget(client, fault.fits)
            case _:
                self._move_the_market(fault)
        self._arrange()

    def _move_the_market(self, fault: Running) -> None:
        match fault.command:
            case order.Skip():
                self._skip(fault)
            case order.List(symbol=symbol):
                self._engine.list_market(listing(symbol))
                self.note_book(symbol)
            case order.Delist(symbol=symbol):
                self._engine.delist_market(symbol)
            case order.Burst(rate=rate):
                self._engine.set_rate(rate)
            case order.ClockSkew(ms=ms):
                self._engine.set_skew(ms * 1000)

    def _stop(self, fault: Running) -> None:
        match fault.command:
            case order.Burst():
                others = [x.command.rate for x in self._of(order.Burst)]
                self._engine.set_rate(others[-1] if others else self._engine.plan.rate)
            case order.ClockSkew():
                others = [x.command.ms for x in self._of(order.ClockSkew)]
                self._engine.set_skew((others[-1] if others else 0) * 1000)
        self._arrange()
        self._hub.road.ended(fault)

    def _arrange(self) -> None:
        """Pass the active faults to the road and the lines."""
        self._hub.road.faults = [x for x in self._running if isinstance(x.command, ON_THE_ROAD)]
        for client in self._hub.clients:
            client.line = self._line(client)

    def _line(self, client: Client) -> Line:
        line = GOOD_LINE
        for fault in self._running:
            if not fault.reaches(client.number):
                continue
            match fault.command:
                case order.Stall(stream=None, pongs=False):
                    line = line._replace(silent=True)
                case order.NoPongs():
                    line = line._replace(pongs=False)
                case order.SlowNetwork(bytes_per_s=bytes_per_s):
                    line = line._replace(bytes_per_s=bytes_per_s)
        return line

    def _skip(self, fault: Running) -> None:
        """Skip ids, now and periodically."""
        command = fault.command
        assert isinstance(command, order.Skip)
        if fault.ended_us is not None:
            return
        kind, _, symbol = command.stream.partition(".")
        jump = self._engine.skip(kind, symbol, command.ids)
        if jump is not None:
            fault.touched += 1
            self._hub.note(
                self.now_us,
                {"skipped": command.stream, "from": jump[0], "to": jump[1], "by": [fault.number]},
            )
        if command.every_s:
            self._at(self.now_us + int(command.every_s * SECOND_US), lambda: self._skip(fault))

    # Helpers --------------------------------------------------------------------------------------

    def check(self, command: Command) -> None:
        """Raise BadCommand where a command cannot be carried out now."""
        if not isinstance(command, ON_THE_MARKET):
            return
        if self._is_recording:
            raise BadCommand(f"{command.fault}: a recording is played, which has no market to move")
        match command:
            case order.Skip(stream=stream):
                self._check_listed(command, stream.partition(".")[2])
            case order.Delist(symbol=symbol):
                self._check_listed(command, symbol)
            case order.List(symbol=symbol):
                if symbol in self._engine.markets:
                    raise BadCommand(f"list: {symbol} is listed already")
                try:
                    listing(symbol)
                except ValueError as error:
                    raise BadCommand(f"list: {error}") from None

    def _check_listed(self, command: Command, symbol: str) -> None:
        if symbol not in self._engine.markets:
            listed = ", ".join(self._engine.markets)
            raise BadCommand(f"{command.fault}: {symbol} is not listed; there are: {listed}")

    def _beginner(self, command: Command) -> Callable[[], object]:
        def begin() -> None:
            try:
                self.begin(command)
            except BadCommand as error:
                self._hub.note(self.now_us, {"refused": str(error)})

        return begin

    def _reached(self, fault: Running) -> list[Client]:
        reached = [client for client in self._hub.clients if fault.reaches(client.number)]
        fault.touched += len(reached)
        return sorted(reached, key=lambda client: client.number)

    def _of(self, kind: type[Kind]) -> list[Any]:
        return [fault for fault in self._running if isinstance(fault.command, kind)]

    def _go_to(self, now_us: int) -> None:
        self.now_us = max(self.now_us, now_us)
        self._hub.road.until(self.now_us)

    def _at(self, at_us: int, act: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at_us, self._count, act))


_MESSAGES = {
    4002: "Parse error",
    4003: "Invalid signature",
    4006: "Invalid stream",
    4008: "Invalid depth window",
}
