"""Looking again and again, and showing it: on a terminal as a live view, elsewhere as plain lines.

Redis away is shown and tried again. Who calls gives `stop`; of signals it knows only
that of a new window size.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from bridge.watch.history import History
from bridge.watch.keyboard import leaving_by_q
from bridge.watch.picture import Picture, draw
from bridge.watch.plain import stream_lines, summary_lines
from bridge.watch.reader import AWAY, look, reason
from bridge.watch.screen import screen


@dataclass(frozen=True, slots=True)
class View:
    """What to look at, how often, and what to say beside it. `where` names the Redis, masked."""

    client: Redis
    prefix: str
    where: str
    every_s: float
    footer: Sequence[str] = ()


async def show_live(view: View, console: Console, stop: asyncio.Event) -> Picture | None:
    """The live view until `stop`, or until q is pressed. Returns the last picture."""
    history = History()
    with (
        Live(console=console, screen=True, auto_refresh=False, transient=True) as live,
        leaving_by_q(stop.set),
        _on_resize(live.refresh),
    ):
        live.update(_Screen(view, None, "looking …"), refresh=True)
        picture: Picture | None = None
        async for trouble in _looks(view, history, stop):
            picture = picture if trouble else draw(history)
            live.update(_Screen(view, picture, trouble), refresh=True)
    return picture


async def show_plain(view: View, say: Callable[[str], None], stop: asyncio.Event) -> Picture | None:
    """A few lines each time, until `stop`. Returns the last picture."""
    history = History()
    picture: Picture | None = None
    async for trouble in _looks(view, history, stop):
        if trouble:
            say(trouble)
            continue
        picture = draw(history)
        for line in summary_lines(picture):
            say(line)
    return picture


async def show_once(view: View, say: Callable[[str], None]) -> Picture:
    """Two looks `every_s` apart, for the rates, said as plain lines with all streams."""
    picture = await picture_of(view)
    for line in summary_lines(picture):
        say(line)
    for line in stream_lines(picture):
        say(line)
    return picture


async def picture_of(view: View) -> Picture:
    """Two looks `every_s` apart. Raises what the Redis client raises."""
    history = History()
    history.add(await look(view.client, view.prefix))
    await asyncio.sleep(view.every_s)
    history.add(await look(view.client, view.prefix))
    return draw(history)


async def _looks(view: View, history: History, stop: asyncio.Event) -> AsyncIterator[str]:
    """Look until told to stop; gives what is in the way, or nothing."""
    while not stop.is_set():
        try:
            history.add(await look(view.client, view.prefix))
            yield ""
        except AWAY as error:
            yield f"Redis at {view.where} does not answer: {reason(error)}"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(view.every_s):
                await stop.wait()


@dataclass(frozen=True, slots=True)
class _Screen:
    """Laid out anew each time it is painted, so that it always fits the terminal."""

    view: View
    picture: Picture | None
    trouble: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.size
        if self.picture is None:
            yield Text(f" {self.trouble}", style="bold yellow" if self.trouble else "dim")
            return
        warning = (f"! {self.trouble}; what you see is the last known",) if self.trouble else ()
        footer = [*warning, *self.view.footer]
        yield screen(self.picture, width, height, self.view.where, footer)


@contextlib.contextmanager
def _on_resize(refresh: Callable[[], None]) -> Iterator[None]:
    """Paint anew when the terminal changes its size."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, refresh)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
