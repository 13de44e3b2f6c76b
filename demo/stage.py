"""Starts the parts in order, each after a check of the one before; stops them in reverse order.

Redis, simulator, bridge, consumers; backwards at the end. Every wait has a deadline and ends early
when a part dies or on a stop. Output goes to `echo`.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from bridge.errors import Fatal
from bridge.runtime.config import Embedded
from bridge.runtime.embedded import EmbeddedServer, embedded_server, has_ended
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.masking import masked_url
from bridge.runtime.redis_client import connect
from bridge.view.facts import Sample
from bridge.view.history import History
from bridge.view.reader import UNAVAILABLE, read_everything
from bridge.view.view_model import BridgeRow, State, draw
from demo import plan
from demo.process import Part

UP_S = 30.0
_POLL_S = 0.05
_ADDRESS = re.compile(r"listening on ws://(\S+)")
_ROOT = Path(__file__).resolve().parent.parent


class Stopped(Exception):
    """A stop was requested while still starting."""


class Stage:
    """All parts of one demo. `server` and `client` exist once Redis is up."""

    def __init__(self, folder: Path, stop: asyncio.Event, echo: Callable[[str], None]) -> None:
        self.folder = folder
        self.parts: list[Part] = []
        self.bad_ends: list[str] = []  # parts that failed to stop cleanly
        self.server: EmbeddedServer
        self.client: Redis
        self.simulator = ""  # host:port
        self._stop = stop
        self._echo = echo

    def kill(self) -> None:
        """Kill every part; Redis ends with this process, by its own guard."""
        for part in self.parts:
            part.kill()
        if hasattr(self, "server"):
            self.thaw_redis()  # a frozen one would not end

    @property
    def config(self) -> Path:
        """The configuration of bridge and consumers."""
        return self.folder / "config.yaml"

    def take_out(self, name: str) -> Part:
        """Remove a part that ends on purpose, so that its end is no failure; the caller owns it."""
        [part] = [part for part in self.parts if part.name == name]
        self.parts.remove(part)
        return part

    async def until_bridge_is_well(self, since_us: int) -> None:
        """Wait until a bridge started after this moment is up and healthy; see `_recovered`."""
        await self._recovered(
            lambda sample: any(
                row.is_healthy and row.since_us > since_us for row in _bridges(sample)
            )
        )

    async def until_consumer_works(self, group: str) -> None:
        """Wait until a worker of this group has handled something; see `_recovered`."""
        await self._recovered(
            lambda sample: any(one.group == group and one.handled for one in sample.workers)
        )

    async def _recovered(self, fact: Callable[[Sample], bool]) -> None:
        """Wait for a fact, up to a deadline or the end of a part, which another task reports."""
        deadline_s = time.monotonic() + UP_S
        while time.monotonic() < deadline_s and not self.ended():
            if fact(await _poll(self.client)):
                return
            await asyncio.sleep(_POLL_S)

    def freeze_redis(self) -> None:
        """Suspend the server: it answers nothing, and its connections stay open."""
        os.kill(self.server.pid, signal.SIGSTOP)

    def thaw_redis(self) -> None:
        """Resume the server, if it was frozen."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server.pid, signal.SIGCONT)

    def ended(self) -> list[str]:
        """A sentence for each part that has ended by itself."""
        sentences = [
            f"{part.name} ended by itself (exit code {part.exit_code}): {part.last_line()} "
            f"(log: {part.log})"
            for part in self.parts
            if part.exit_code is not None
        ]
        if has_ended(self.server):
            sentences.insert(
                0, f"Redis ended by itself (log: {self.folder / 'redis' / 'server.log'})"
            )
        return sentences

    async def until(self, what: str, log: Path, fact: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a fact. Raises Fatal when it does not become true, Stopped on a stop."""
        deadline = time.monotonic() + UP_S
        while not await fact():
            if self._stop.is_set():
                raise Stopped
            if dead := self.ended():
                raise Fatal("\n".join(dead))
            if time.monotonic() > deadline:
                raise Fatal(f"{what} did not come up within {UP_S:g} s (log: {log})")
            await asyncio.sleep(_POLL_S)

    def begin(self, name: str, command: list[str], *, with_keys: bool = False) -> Part:
        """Start a part."""
        part = Part.start(
            name,
            command,
            log=self.folder / f"{name}.log",
            folder=self.folder,
            environment=plan.environment(os.environ, _ROOT, with_keys=with_keys),
        )
        self.parts.append(part)
        return part

    def up(self, name: str, detail: str, pid: int) -> None:
        self._echo(f"  {name:<10} {detail}  (process {pid})")


@asynccontextmanager
async def staged(
    folder: Path,
    rate: float,
    stop: asyncio.Event,
    echo: Callable[[str], None],
    on_stage: Callable[[Stage], None],
) -> AsyncIterator[Stage]:
    """Start everything; at the end stop everything in order, also after a failure.

    Raises Fatal, with the failure and its log file, or Stopped.
    """
    stage = Stage(folder, stop, echo)
    on_stage(stage)
    async with AsyncExitStack() as stack:
        settings = Embedded(data_dir=folder / "redis")
        stage.server = await stack.enter_async_context(embedded_server(settings))
        moved = stage.server.moved_from_port
        note = f" (port {moved} is taken)" if moved else ""
        stage.up("redis", masked_url(stage.server.url) + note, stage.server.pid)
        stage.client = connect(stage.server.url, name="demo", decode_responses=True)
        await stack.enter_async_context(stage.client)
        stack.push_async_callback(_take_off, stage)
        await _put_on(stage, rate)
        yield stage


async def _put_on(stage: Stage, rate: float) -> None:
    stage.simulator = await _simulator(stage, rate)
    config = stage.config
    addresses = plan.Addresses(stage.server.data_dir, stage.simulator)
    config.write_text(plan.configuration(addresses), "utf-8")
    # Together, so that consumers are up for the first entries; each has its own wait.
    bridge = stage.begin("bridge", plan.bridge_command(sys.executable, config), with_keys=True)
    consumers = [
        stage.begin(name, plan.consumer_command(sys.executable, config, name))
        for name in plan.CONSUMERS
    ]
    await _bridge(stage, bridge)
    await _consumers(stage, consumers)


async def _simulator(stage: Stage, rate: float) -> str:
    part = stage.begin("simulator", plan.simulator_command(sys.executable, rate))

    async def has_address() -> bool:
        return _ADDRESS.search(part.output()) is not None

    await stage.until("the simulator", part.log, has_address)
    found = _ADDRESS.search(part.output())
    assert found is not None
    stage.up("simulator", f"ws://{found.group(1)}", part.pid)
    return found.group(1)


async def _bridge(stage: Stage, part: Part) -> None:
    async def is_publishing() -> bool:
        sample = await _poll(stage.client)
        published = any(facts.length for facts in sample.streams.values())
        return published and any(row.is_healthy for row in _bridges(sample))

    await stage.until("the bridge", part.log, is_publishing)
    count = len((await _poll(stage.client)).streams)
    stage.up("bridge", f"{count} streams into Redis", part.pid)


async def _consumers(stage: Stage, parts: list[Part]) -> None:
    for part in parts:

        async def is_at_work(group: str = part.name) -> bool:
            sample = await _poll(stage.client)
            return any(worker.group == group and worker.handled for worker in sample.workers)

        await stage.until(f"the consumer {part.name}", part.log, is_at_work)
        stage.up(part.name, f"log {part.log.name}" if part.name == "tail" else "consumer", part.pid)


async def _poll(client: Redis) -> Sample:
    """A sample; an empty one where Redis does not answer (the caller's wait has a deadline)."""
    try:
        return await read_everything(client, KeySpace())
    except UNAVAILABLE:
        return Sample(now_us=0)


def _bridges(sample: Sample) -> tuple[BridgeRow, ...]:
    history = History()
    history.add(sample)
    return tuple(row for row in draw(history).bridges if row.state is State.UP)


async def _take_off(stage: Stage) -> None:
    """Stop the consumers together, then the bridge, then the simulator."""
    consumers = [part for part in stage.parts if part.name in plan.CONSUMERS]
    others = [part for part in reversed(stage.parts) if part not in consumers]
    for several in (consumers, *([part] for part in others)):
        async with asyncio.TaskGroup() as tasks:
            for part in several:
                if part.exit_code is None:
                    tasks.create_task(_stop(stage, part), name=part.name)


async def _stop(stage: Stage, part: Part) -> None:
    code = await part.stop()
    if code:
        reason = f"did not stop cleanly (exit code {code}): {part.last_line()} (log: {part.log})"
        stage.bad_ends.append(f"{part.name} {reason}")
