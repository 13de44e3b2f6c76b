"""Runs a demo: start the parts, watch, judge, stop the parts.

Returns failures as sentences; `__main__` handles exit codes and signals.
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
from demo.plan import watch_commands
from demo.stage import Stage, staged
from demo.verdict import Run, failures, summary

LIVE_EVERY_S = 0.5
PLAIN_EVERY_S = 5.0
_POLL_PARTS_EVERY_S = 0.2
_LAST_POLL_S = 0.3
_LAST_POLL_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Wish:
    """Options: duration (None: until stopped), frame rate, and folder."""

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
    """Run the whole demo. Returns the failures. Raises Fatal or Stopped while starting.

    `on_stage` gets the owner of the parts as soon as it exists, so that they can be killed.
    """
    echo(f"Starting, each part its own process; data and logs in {wish.folder}")
    async with staged(wish.folder, wish.rate, stop, echo, on_stage) as stage:
        browser = Browser.open()
        echo(f"Open in a browser: {browser.address}")
        echo("or from another terminal:")
        ways = watch_commands(stage.server, _bridge())
        for way in ways:
            echo(f"  {way}")
        breaker = Breaker(stage)
        started_s = time.monotonic()
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            url = stage.server.url
            tasks.create_task(browser.serve(url, breaker, is_over), name="console")
            breaking = tasks.create_task(breaker.run(stop), name="breaking")
            footer = watch_lines(browser.address, ways)
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
    """Show the view until the time is over, `stop`, or the end of a part. Returns which ended."""
    live = console.is_terminal
    footer: list[str] = []
    view = View(
        stage.client,
        KeySpace(),
        masked_url(stage.server.url),
        LIVE_EVERY_S if live else PLAIN_EVERY_S,
        footer,
        {key: partial(breaker.request, name) for key, name in KEYS.items()},
    )
    with _after(wish.seconds, stop):
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(_until_one_ends(stage, stop), name="guarding")
            updating = tasks.create_task(
                _update_footer(footer, breaker, ways, stage), name="updating"
            )
            await (show_live(view, console, stop) if live else show_plain(view, echo, stop))
            updating.cancel()
    return guarding.result()


def watch_lines(address: str, ways: Sequence[str]) -> Sequence[str]:
    """Lines on how to watch, from a browser and from a terminal."""
    return (f" in a browser: {address}", *(f" {way}" for way in ways))


async def _update_footer(
    footer: list[str], breaker: Breaker, ways: Sequence[str], stage: Stage
) -> None:
    """Keep the lines at the bottom of the view up to date."""
    while True:
        footer[:] = bottom(breaker.state, ways, stage.folder)
        await asyncio.sleep(LIVE_EVERY_S)


def bottom(state: str, ways: Sequence[str], folder: Path) -> Sequence[str]:
    """The lines below the live view: faults and their results, the keys for faults, and other ways
    to watch.
    """
    return (f" {state}", f" {KEYS_LINE} · q stops all", *ways, f" logs in {folder}")


async def _until_one_ends(stage: Stage, stop: asyncio.Event) -> list[str]:
    while not stop.is_set():
        if dead := stage.ended():
            stop.set()
            return dead
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_PARTS_EVERY_S):
                await stop.wait()
    return []


async def _last_picture(stage: Stage) -> ViewModel | None:
    """The view model at the end, while all parts still run."""
    view = View(stage.client, KeySpace(), stage.server.url, _LAST_POLL_S)
    with contextlib.suppress(*UNAVAILABLE):
        async with asyncio.timeout(_LAST_POLL_LIMIT_S):
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
    """The prefix of the bridge's commands: as it was called, or with this Python."""
    called = Path(sys.argv[0])
    if called.name == "backpack-bridge":
        on_path = shutil.which(called.name)
        is_it = on_path is not None and Path(on_path).resolve() == called.resolve()
        return called.name if is_it else _from_here(called)
    return f"{_from_here(Path(sys.executable))} -m bridge"


def _from_here(program: Path) -> str:
    """The program's path, relative where it is below this folder."""
    here = os.path.relpath(program)
    return str(program) if here.startswith("..") else here
