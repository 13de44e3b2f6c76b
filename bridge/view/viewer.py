"""Polls Redis and shows the result: on a terminal as a live view, elsewhere as plain lines.

A failed poll is shown and repeated. The caller gives `stop`; the only signal handled here is that
of a new window size.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_trouble import reason
from bridge.view.browse import Browse, Page, ordered, pressed
from bridge.view.facts import Followed
from bridge.view.history import History
from bridge.view.keyboard import pressed_keys
from bridge.view.pages import FRAME_LINES, Shown, entry_of, page
from bridge.view.plain import summary_lines
from bridge.view.reader import UNAVAILABLE, failure_sentence, newest, read_sample
from bridge.view.view_model import ViewModel, draw

PAINT_EVERY_S = 0.25
LATE_S = 1.5  # a poll that takes this much longer than usual: Redis does not answer
MOST_ENTRIES = 200
NOT_YET = "it has not answered until now"


@dataclass(frozen=True, slots=True)
class View:
    """What to poll, how often, and what to add. `where` names the Redis, masked. `footer` is read
    at each painting, so its owner may change it. `keys` are handled besides q.
    """

    client: Redis
    space: KeySpace
    where: str
    every_s: float
    footer: Sequence[str] = ()
    keys: Mapping[str, Callable[[], None]] = field(default_factory=dict)


async def show_live(
    view: View, console: Console, stop: asyncio.Event
) -> ViewModel | Exception | None:
    """The live view until `stop`, which is also set when the user quits. Returns the last view
    model; without one, the error that prevented it.
    """
    session = _Session(view)
    with (
        Live(console=console, screen=True, auto_refresh=False, transient=True) as live,
        pressed_keys(session.news) as keys,
        _on_resize(live.refresh),
    ):
        live.update(_Screen(session), refresh=True)
        async with asyncio.TaskGroup() as tasks:
            polling = tasks.create_task(session.poll())
            while not (stop.is_set() or session.browse.is_leaving):
                # Also without news, since the age of the view model is painted, too.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAINT_EVERY_S):
                        await session.news.wait()
                session.news.clear()
                while keys:
                    key = keys.popleft()
                    if key.lower() in view.keys and not session.browse.is_searching:
                        view.keys[key.lower()]()
                    else:
                        session.press(key, console.size.height)
                live.update(_Screen(session), refresh=True)
            polling.cancel()
    stop.set()
    return session.view_model or session.error


class _Session:
    """What the user of the live view has selected, and the data read for it."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.browse = Browse()
        self.view_model: ViewModel | None = None
        self.before: ViewModel | None = None  # the previous one, to highlight changes
        self.entries: Sequence[Followed] = ()  # of the selected stream, newest first
        self.error: Exception | None = None  # of the last poll
        self.news = asyncio.Event()
        self._history = History()
        self._answered_s = time.monotonic()
        self._poll_now = asyncio.Event()

    async def poll(self) -> None:
        """Poll Redis without end."""
        while True:
            if not self.browse.is_paused:
                await self._poll_once()
                self.news.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.view.every_s):
                    await self._poll_now.wait()
            self._poll_now.clear()

    def press(self, key: str, height: int) -> None:
        """Handle a pressed key."""
        before = self.browse
        page_lines = max(1, height - FRAME_LINES)
        self.browse = pressed(before, key, self._listed(), page_lines)
        if self.browse.stream != before.stream:
            self.entries = ()
        if self.browse.page is not before.page or before.is_paused:
            self._poll_now.set()

    def shown(self) -> Shown:
        """All that is to be painted."""
        age_s = time.monotonic() - self._answered_s
        is_late = age_s > self.view.every_s + LATE_S and not self.browse.is_paused
        return Shown(
            self.view_model, self.before, self.view.where, self.browse, self.entries, age_s,
            reason(self.error) if self.error else NOT_YET if is_late else "",
        )  # fmt: skip

    def _listed(self) -> Sequence[str]:
        match self.browse.page:
            case Page.STREAMS:
                streams = self.view_model.streams if self.view_model is not None else ()
                return [stream.name for stream in ordered(streams, self.browse)]
            case Page.STREAM:
                return [entry.entry_id for entry in self.entries]
            case Page.ENTRY:
                chosen = entry_of(self.entries, self.browse.entry_id)
                return list(chosen.fields) if chosen is not None else ()
        return ()

    async def _poll_once(self) -> None:
        view = self.view
        try:
            self._history.add(await read_sample(view.client, view.space, self._history.streams))
            # The list is kept while the user has moved down in it or reads an entry.
            if self.browse.page is Page.STREAM and (not self.entries or not self.browse.place):
                stream = self.browse.stream
                found = await newest(view.client, view.space, stream, MOST_ENTRIES)
                if stream == self.browse.stream:
                    self.entries = found
        except UNAVAILABLE as error:
            self.error = error
            return
        self.before, self.view_model = self.view_model, draw(self._history)
        self.error, self._answered_s = None, time.monotonic()


async def show_plain(
    view: View, echo: Callable[[str], None], stop: asyncio.Event
) -> ViewModel | Exception | None:
    """Print a few lines at each poll, until `stop`. Returns as `show_live`."""
    history = History()
    seen: ViewModel | Exception | None = None
    async for error in _samples(view, history, stop):
        if error is not None:
            echo(failure_sentence(error, f"Redis at {view.where}"))
            seen = seen if isinstance(seen, ViewModel) else error
            continue
        seen = draw(history)
        for line in summary_lines(seen):
            echo(line)
    return seen


async def view_model_of(view: View) -> ViewModel:
    """Two polls `every_s` apart, for the rates. Raises the Redis client's errors."""
    history = History()
    history.add(await read_sample(view.client, view.space))
    await asyncio.sleep(view.every_s)
    history.add(await read_sample(view.client, view.space, history.streams))
    return draw(history)


async def _samples(
    view: View, history: History, stop: asyncio.Event
) -> AsyncIterator[Exception | None]:
    """Poll until `stop`; yields the error of each poll, or None."""
    while not stop.is_set():
        try:
            history.add(await read_sample(view.client, view.space, history.streams))
            yield None
        except UNAVAILABLE as error:
            yield error
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(view.every_s):
                await stop.wait()


@dataclass(frozen=True, slots=True)
class _Screen:
    """A renderable that is laid out at each painting, so that it always fits the terminal."""

    session: _Session

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.size
        yield page(self.session.shown(), width, height, self.session.view.footer)


@contextlib.contextmanager
def _on_resize(refresh: Callable[[], None]) -> Iterator[None]:
    """Repaint when the terminal changes its size."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, refresh)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
