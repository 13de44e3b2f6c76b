"""From the first part to the closing lines: put on, watch, judge, take off.

Returns failures as sentences; exit codes and signals are the door's.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bridge.watch.picture import Picture
from bridge.watch.reader import AWAY
from bridge.watch.viewer import View, picture_of, show_live, show_plain
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
    say: Callable[[str], None],
    on_stage: Callable[[Stage], None],
) -> list[str]:
    """The whole demo. Returns what went wrong. Raises Fatal or Stopped while starting.

    `on_stage` gets the parts' owner as soon as there is one, for whoever must end them by force.
    """
    say(f"Starting, each part its own process; data and logs in {wish.folder}")
    async with staged(wish.folder, wish.rate, stop, say, on_stage) as stage:
        ways = ways_to_look(stage.server.url, _python())
        say("Look in from another terminal:")
        for way in ways:
            say(f"  {way}")
        started_s = time.monotonic()
        dead = await _watch(stage, wish, console, stop, say, ways)
        run = Run(await _last_picture(stage), time.monotonic() - started_s)
        wrong = [*dead, *failures(run)]
        say("Stopping: consumers, bridge, simulator, Redis")
    wrong += stage.bad_ends
    say("")
    for line in summary(run):
        say(line)
    return wrong


async def _watch(
    stage: Stage,
    wish: Wish,
    console: Console,
    stop: asyncio.Event,
    say: Callable[[str], None],
    ways: Sequence[str],
) -> list[str]:
    """Show it until the time is over, someone stops it, or a part ends. Returns which ended."""
    live = console.is_terminal
    view = View(
        stage.client,
        "",
        stage.server.url,
        LIVE_EVERY_S if live else PLAIN_EVERY_S,
        _footer(stage, ways),
    )
    with _after(wish.seconds, stop):
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(_until_one_ends(stage, stop), name="guarding")
            await (show_live(view, console, stop) if live else show_plain(view, say, stop))
    return guarding.result()


async def _until_one_ends(stage: Stage, stop: asyncio.Event) -> list[str]:
    while not stop.is_set():
        if dead := stage.ended():
            stop.set()
            return dead
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AT_PARTS_EVERY_S):
                await stop.wait()
    return []


async def _last_picture(stage: Stage) -> Picture | None:
    """How it stands at the end, while everything still lives."""
    view = View(stage.client, "", stage.server.url, _LAST_LOOK_S)
    with contextlib.suppress(*AWAY):
        async with asyncio.timeout(_LAST_LOOK_LIMIT_S):
            return await picture_of(view)
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


def _footer(stage: Stage, ways: Sequence[str]) -> tuple[str, ...]:
    return (*(f" {way}" for way in ways), f" q stops everything · logs in {stage.folder}")


def _python() -> str:
    """How to call this Python from here: short where it lives below."""
    here = os.path.relpath(sys.executable)
    return sys.executable if here.startswith("..") else here
