"""The wiring: builds engine, hub and servers from settings, serves on one port, and stops on
request.

Connects all parts and implements none. `__main__` handles signals and exit codes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from simulator.admin import AdminServer
from simulator.engine import Engine, Plan
from simulator.events import PositionUpdate
from simulator.faults.director import Director
from simulator.faults.on_rest import Budget, RestFaults
from simulator.faults.reading import Scheduled
from simulator.hub import Hub
from simulator.ledger import Ledger
from simulator.playback import RecordedFrame, play_back
from simulator.player import play
from simulator.rest import RestServer
from simulator.server import ClientLimits, SocketServer
from simulator.session import Topic

LEDGER_FLUSH_S = 0.1
POSITION_STREAM = "account.positionUpdate"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a run; engine time starts when this is created.

    `recorded` replaces the generated market; `speed` None means as fast as possible.
    """

    plan: Plan
    host: str = "127.0.0.1"
    port: int = 0
    ledger: Path | None = None
    recorded: list[RecordedFrame] | None = None
    speed: float | None = 1.0
    faults: tuple[Scheduled, ...] = ()
    budget: Budget = field(default_factory=Budget)
    client_limits: ClientLimits = field(default_factory=ClientLimits)
    begun_s: float = field(default_factory=time.monotonic)


async def serve(settings: Settings, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
    """Serve until `stop` is set. `ready` gets the address once the port is open.

    Raises OSError when the port or the ledger cannot be opened.
    """
    plan = settings.plan
    engine = Engine(plan)
    ledger = None
    if settings.ledger is not None:
        ledger = Ledger(
            settings.ledger, seed=plan.seed, start_us=plan.start_us, markets=list(engine.markets)
        )
    hub = Hub(_wall_us, ledger)
    director = Director(engine, hub, settings.faults, is_recording=settings.recorded is not None)
    sockets = SocketServer(hub, director, plan.accounts, _opening(engine), settings.client_limits)
    runner = web.AppRunner(
        _application(engine, hub, director, sockets, settings),
        shutdown_timeout=0.2,
        access_log=None,
    )
    for symbol in engine.markets:
        director.note_book(symbol)
    try:
        await runner.setup()
        await web.TCPSite(runner, settings.host, settings.port).start()
        host, port = runner.addresses[0][:2]
        ready(f"{host}:{port}")
        async with asyncio.TaskGroup() as group:
            recorded = settings.recorded
            made = engine if recorded is None else None
            tasks = [
                group.create_task(play(made, hub, director, settings.begun_s)),
                group.create_task(_flush_regularly(ledger)),
            ]
            if recorded is not None:
                tasks.append(group.create_task(play_back(recorded, hub, settings.speed)))
            await stop.wait()
            for task in tasks:
                task.cancel()
        await sockets.close()
    finally:
        await runner.cleanup()
        if ledger is not None:
            ledger.close()


def _application(
    engine: Engine, hub: Hub, director: Director, sockets: SocketServer, settings: Settings
) -> web.Application:
    faults = RestFaults(engine, hub, director, settings.budget)
    application = web.Application(middlewares=[faults.middleware])
    rest = RestServer(
        engine,
        settings.plan.accounts,
        director.clock_ms,
        is_recording=settings.recorded is not None,
    )
    application.add_routes(rest.routes())
    application.add_routes(AdminServer(engine, hub, director, faults).routes())
    application.add_routes([web.get("/{path:.*}", sockets.handle)])
    return application


def _opening(engine: Engine) -> Callable[[Topic], Iterable[PositionUpdate]]:
    """The events for a new subscriber: the open positions; none for other streams."""

    def opening(topic: Topic) -> Iterable[PositionUpdate]:
        if topic.account is None or not topic.stream.startswith(POSITION_STREAM):
            return
        symbol = topic.stream[len(POSITION_STREAM) + 1 :]
        for view in engine.accounts.position_views(topic.account):
            if symbol in ("", view.symbol):
                # These frames may carry an E one microsecond before their T.
                now_us = engine.clock_us
                yield PositionUpdate((topic.stream,), topic.account, now_us - 1, now_us, None, view)

    return opening


async def _flush_regularly(ledger: Ledger | None) -> None:
    while ledger is not None:
        await asyncio.sleep(LEDGER_FLUSH_S)
        ledger.flush()


def _wall_us() -> int:
    return time.time_ns() // 1000
