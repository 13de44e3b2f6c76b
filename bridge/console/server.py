"""The console's HTTP: pages, files, events, and the few requests that change something."""

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from string import Template
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.console.connections import EVENTS, Connection
from bridge.console.guard import HEADERS, Guard
from bridge.console.hub import Client, Hub, TooMany
from bridge.console.kit import DeadLetters, Keys, is_entry_id
from bridge.console.levers import Levers, NoLevers
from bridge.console.past import Busy
from bridge.console.watcher import PAGES, NoSuchTopic, NotYetKnown, Watched, Watcher
from bridge.contract.json_text import parsed
from bridge.contract.whole_number import whole_number
from bridge.errors import Fatal
from bridge.view.reader import UNAVAILABLE, failure_sentence

SLOW_S = 15.0  # a client that reads nothing for so long is disconnected
MOST_BODY = 16_384
MOST_DEAD_LETTERS = 200
_MS = re.compile(r"[0-9]{1,15}")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_TITLES = {
    "now": "Now",
    "market": "Market",
    "consumers": "Consumers",
    "gaps": "Gaps",
    "latency": "Latency",
}


@dataclass(slots=True)
class Site:
    """One console: the system it watches, its access rules, and the actions it offers."""

    watched: Watched
    guard: Guard
    levers: Levers = field(default_factory=NoLevers)
    hub: Hub = field(default_factory=Hub)

    async def serve(self, listening: socket.socket, stop: asyncio.Event) -> None:
        """Serve on this socket until `stop`. No client is left at its end."""
        watcher = Watcher(self.watched, self.hub, self.levers)
        config = uvicorn.Config(
            application(self, watcher),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watcher.run(), name="watching")
            serving = tasks.create_task(server.serve(sockets=[listening]), name="serving")
            await stop.wait()
            server.should_exit = True
            self.hub.close()
            await serving
            watching.cancel()


class _Server(uvicorn.Server):
    """Leaves signals to the command, which handles them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Fatal where the address cannot be used."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise Fatal(f"cannot listen on {host}:{port} ({why}): give another by --listen") from None


def application(site: Site, watcher: Watcher) -> ASGIApp:
    """The ASGI application, guarded."""
    api = _DataApi(site, watcher)
    page = _page_texts()

    async def show(request: Request) -> Response:
        return Response(page[request.url.path], media_type="text/html")

    routes = [
        *(Route(path, show) for path in page),
        Route("/static/{name:path}", _static),
        Route(EVENTS, api.events),
        Route("/api/past", api.past),
        Route("/api/letter", api.letter),
        Route("/api/letters", api.change_dead_letters, methods=["POST"]),
        Route("/api/levers/{name}", api.pull, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _error_response})
    return _guarded(app, site.guard)


class _DataApi:
    """Answers requests for data."""

    def __init__(self, site: Site, watcher: Watcher) -> None:
        self._site = site
        self._watcher = watcher
        # One request at a time: many at once would occupy the Redis connections that the pages are
        # read with.
        self._lock = asyncio.Lock()

    async def events(self, request: Request) -> Response:
        """A page's content as server-sent events: all of it, then the changes."""
        params = request.query_params
        try:
            topic = await self._watcher.topic(params.get("page", "now"), params.get("symbol", ""))
        except NoSuchTopic as error:
            raise HTTPException(404, str(error)) from None
        except NotYetKnown as error:
            raise HTTPException(503, str(error)) from None
        return _Events(self._site, self._watcher, topic)

    async def past(self, request: Request) -> Response:
        """A market at an earlier moment: parameters `symbol`, and `at`, in ms."""
        params = request.query_params
        at = params.get("at", "")
        if not _MS.fullmatch(at):
            raise HTTPException(400, "give at: a time in ms, as 1795408304204")
        try:
            market = await self._watcher.past(params.get("symbol", ""), int(at))
        except NoSuchTopic as error:
            raise HTTPException(404, str(error)) from None
        except (Busy, NotYetKnown) as error:
            raise HTTPException(503, str(error)) from None
        except UNAVAILABLE as error:
            raise HTTPException(503, failure_sentence(error)) from None
        return JSONResponse(market, headers={"cache-control": "no-store"})

    async def letter(self, request: Request) -> Response:
        """The entry of one dead letter."""
        params = request.query_params
        requested = (params.get("group", ""), params.get("stream", ""), [params.get("letter", "")])
        found = await self._found(*requested)
        if not found:
            raise HTTPException(404, "this dead letter does not exist any more")
        with contextlib.suppress(ValueError):
            return JSONResponse(parsed(found[0].fields.get("fields", "")))
        raise HTTPException(404, "the entry of this dead letter cannot be read")

    async def change_dead_letters(self, request: Request) -> Response:
        """Send dead letters back to their group, or drop them."""
        match await _json(request):
            case {
                "action": "retry" | "drop" as action,
                "group": str(group),
                "stream": str(stream),
                "letters": [_, *_] as dead_letters,
            } if len(dead_letters) <= MOST_DEAD_LETTERS:
                found = await self._found(group, stream, dead_letters)
            case _:
                raise HTTPException(
                    400, "give action (retry or drop), group, stream, and letters: a list of IDs"
                )
        watched = self._site.watched
        stored = DeadLetters(watched.client, Keys(watched.space), group)
        try:
            async with self._lock:
                done = await (stored.send_back(found) if action == "retry" else stored.drop(found))
        except UNAVAILABLE as error:
            raise HTTPException(503, failure_sentence(error)) from None
        return JSONResponse({"done": done})

    async def pull(self, request: Request) -> Response:
        """Trigger an action."""
        try:
            sentence = await self._site.levers.pull(request.path_params["name"])
        except KeyError:
            raise HTTPException(404, "there is no such action") from None
        return JSONResponse({"text": sentence})

    async def _found(self, group: str, stream: str, dead_letters: list[Any]) -> list[Any]:
        if not all(isinstance(one, str) and is_entry_id(one) for one in dead_letters):
            raise HTTPException(400, "a dead letter's ID is two numbers, as 1795408304204-0")
        try:
            async with self._lock:
                return await self._watcher.dead_letters(group, stream, dead_letters)
        except UNAVAILABLE as error:
            raise HTTPException(503, failure_sentence(error)) from None


class _Events(StreamingResponse):
    """The events of a topic, as long as the client reads them."""

    def __init__(self, site: Site, watcher: Watcher, topic: str) -> None:
        self._hub = site.hub
        self._watcher = watcher
        self._topic = topic
        super().__init__((), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            client = self._hub.join(self._topic)
        except TooMany as error:
            await PlainTextResponse(str(error), 503)(scope, receive, send)
            return

        async def in_time(message: Message) -> None:
            async with asyncio.timeout(SLOW_S):
                await send(message)

        self.body_iterator = self._messages(client)
        try:
            await super().__call__(scope, receive, in_time)
        except* (TimeoutError, ClientDisconnect):
            pass  # the client does not read: its connection is closed
        finally:
            self._hub.leave(client)

    async def _messages(self, client: Client) -> Any:
        yield b"retry: 1000\n\n"
        for message in self._watcher.first(client.topic):
            yield message.encoded()
        async for message in client.messages():
            yield message.encoded()


async def _json(request: Request) -> Any:
    """The body as JSON. Raises HTTPException."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "a request here is JSON")
    length = whole_number(request.headers.get("content-length", ""))
    if length is None or length > MOST_BODY:
        raise HTTPException(413, f"a request here has a length of at most {MOST_BODY} bytes")
    try:
        return parsed(await request.body())
    except ValueError:
        raise HTTPException(400, "the request is not JSON") from None


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    found = _static_files().get(name)
    if found is None:
        raise HTTPException(404, f"there is no file {name}")
    kind = next(kind for end, kind in _TYPES.items() if name.endswith(end))
    return Response(found, media_type=kind, headers={"cache-control": "no-cache"})


def _static_files() -> Mapping[str, bytes]:
    """All files for browsers, by path; no other file is ever opened."""
    if not _STATIC:
        root = files("bridge.console").joinpath("static")
        for place in (root, root.joinpath("uplot")):
            for one in place.iterdir():
                if one.name.endswith(tuple(_TYPES)):
                    name = one.name if place is root else f"uplot/{one.name}"
                    _STATIC[name] = one.read_bytes()
    return _STATIC


_STATIC: dict[str, bytes] = {}


def _page_texts() -> dict[str, str]:
    """Path → page; `/` is the first page."""
    root = files("bridge.console").joinpath("static")
    shell = Template(root.joinpath("shell.html").read_text("utf-8"))
    texts = {}
    for page in PAGES:
        main = root.joinpath(f"{page}.html").read_text("utf-8")
        current = {f"on_{one}": 'aria-current="page"' if one == page else "" for one in PAGES}
        text = shell.substitute(current, title=_TITLES[page], page=page, main=main)
        texts["/" if page == PAGES[0] else f"/{page}"] = text
    return texts


async def _error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code)


def _guarded(app: ASGIApp, guard: Guard) -> ASGIApp:
    """Checks every request with the guard, and adds its headers to every answer."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = guard.refusal(scope["method"], dict(Headers(scope=scope).items()))
        answer: Callable[[Scope, Receive, Send], Awaitable[None]] = app
        if refusal is not None:
            answer = PlainTextResponse(refusal.text, refusal.status)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *ours]
            await send(message)

        await answer(scope, receive, with_headers)

    return guarded
