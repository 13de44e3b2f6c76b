"""From the first part to the closing lines: put on, watch, judge, take off.

Returns failures as sentences; exit codes and signals are the door's.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from bridge.runtime.keyspace import KeySpace
from bridge.runtime.masking import masked_url
from bridge.view.reader import UNAVAILABLE
from bridge.view.view_model import ViewModel
from bridge.view.viewer import View, show_live, show_plain, view_model_of
from demo.breaking import KEYS, KEYS_LINE, Breaker
from demo.browser import Browser
from demo.plan import ways_to_look
from demo.stage import Stage, staged
from demo.verdict import Run, failures, summary

LIVE_EVERY_S = 0.5
PLAIN_EVERY_S = 5.0
_LOOK_AT_PARTS_EVERY_S = 0.2
_LAST_LOOK_S = 0.3
_LAST_LOOK_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted: how long (None: until told to stop), how much, and where it is kept."""

    seconds: float | None
    rate: float
    folder: Path


async def perform(
    wish: Wish,
    console: Console,
    stop: asyncio.Event,
    echo: Callable[[str], None],
    on_stage: Callable[[Stage], None],
) -> list[str]:
    """The whole demo. Returns what went wrong. Raises Fatal or Stopped while starting.

    `on_stage` gets the parts' owner as soon as there is one, for whoever must end them by force.
    """
    echo(f"Starting, each part its own process; data and logs in {wish.folder}")
    async with staged(wish.folder, wish.rate, stop, echo, on_stage) as stage:
        browser = Browser.open()
        echo(f"Look in with a browser: {browser.address}")
        echo("or from another terminal:")
        ways = ways_to_look(stage.server, _bridge())
        for way in ways:
            echo(f"  {way}")
        breaker = Breaker(stage)
        started_s = time.monotonic()
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            url = stage.server.url
            tasks.create_task(browser.serve(url, breaker, is_over), name="console")
            breaking = tasks.create_task(breaker.run(stop), name="breaking")
            footer = looking(browser.address, ways)
            dead = await _watch(stage, wish, console, stop, echo, breaker, footer)
            await breaking
            is_over.set()
        run = Run(await _last_picture(stage), time.monotonic() - started_s, breaker.tally)
        wrong = [*dead, *failures(run)]
        echo("Stopping: consumers, bridge, simulator, Redis")
    wrong += stage.bad_ends
    echo("")
    for line in summary(run):
        echo(line)
    return wrong


async def _watch(
    stage: Stage,
    wish: Wish,
    console: Console,
    stop: asyncio.Event,
    echo: Callable[[str], None],
    breaker: Breaker,
    ways: Sequence[str],
) -> list[str]:
    """Show it until the time is over, someone stops it, or a part ends. Returns which ended."""
    live = console.is_terminal
    footer: list[str] = []
    view = View(
        stage.client,
        KeySpace(),
        masked_url(stage.server.url),
        LIVE_EVERY_S if live else PLAIN_EVERY_S,
        footer,
        {key: partial(breaker.want, name) for key, name in KEYS.items()},
    )
    with _after(wish.seconds, stop):
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(_until_one_ends(stage, stop), name="guarding")
            telling = tasks.create_task(_tell(footer, breaker, ways, stage), name="telling")
            await (show_live(view, console, stop) if live else show_plain(view, echo, stop))
            telling.cancel()
    return guarding.result()


def looking(address: str, ways: Sequence[str]) -> Sequence[str]:
    """How to look in, from a browser and from a terminal."""
    return (f" in a browser: {address}", *(f" {way}" for way in ways))


async def _tell(footer: list[str], breaker: Breaker, ways: Sequence[str], stage: Stage) -> None:
    """Keep the lines at the bottom of the view up to date."""
    while True:
        footer[:] = bottom(breaker.state, ways, stage.folder)
        await asyncio.sleep(LIVE_EVERY_S)


def bottom(state: str, ways: Sequence[str], folder: Path) -> Sequence[str]:
    """The lines below the live view: what is broken and what became of it, which keys break what,
    where else to look.
    """
    return (f" {state}", f" {KEYS_LINE} · q stops all", *ways, f" logs in {folder}")


async def _until_one_ends(stage: Stage, stop: asyncio.Event) -> list[str]:
    while not stop.is_set():
        if dead := stage.ended():
            stop.set()
            return dead
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AT_PARTS_EVERY_S):
                await stop.wait()
    return []


async def _last_picture(stage: Stage) -> ViewModel | None:
    """How it stands at the end, while everything still lives."""
    view = View(stage.client, KeySpace(), stage.server.url, _LAST_LOOK_S)
    with contextlib.suppress(*UNAVAILABLE):
        async with asyncio.timeout(_LAST_LOOK_LIMIT_S):
            return await view_model_of(view)
    return None


@contextlib.contextmanager
def _after(seconds: float | None, stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` when the time is over."""
    if seconds is None:
        yield
        return
    timer = asyncio.get_running_loop().call_later(seconds, stop.set)
    try:
        yield
    finally:
        timer.cancel()


def _bridge() -> str:
    """How to call the bridge's commands from here: as it was called, or by this Python."""
    called = Path(sys.argv[0])
    if called.name == "backpack-bridge":
        on_path = shutil.which(called.name)
        is_it = on_path is not None and Path(on_path).resolve() == called.resolve()
        return called.name if is_it else _from_here(called)
    return f"{_from_here(Path(sys.executable))} -m bridge"


def _from_here(program: Path) -> str:
    """Its path, short where it lies below this folder."""
    here = os.path.relpath(program)
    return str(program) if here.startswith("..") else here
