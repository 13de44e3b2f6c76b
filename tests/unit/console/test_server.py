"""The replies of the console's ASGI application, called directly: no socket, no Redis."""

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis
from starlette.types import ASGIApp, Message

from bridge.console import server
from bridge.console.guard import Guard
from bridge.console.hub import Hub
from bridge.console.levers import NoLevers
from bridge.console.server import MOST_BODY, MOST_DEAD_LETTERS, Site, application
from bridge.console.watcher import Watched, Watcher
from bridge.runtime.keyspace import KeySpace

HOST, TOKEN = "127.0.0.1:8088", "a-token-of-sixteen"
CHANGE = {"action": "drop", "group": "g", "stream": "trade.A_B", "letters": ["1-1"]}


def console(hub: Hub) -> ASGIApp:
    """A console that has not polled its Redis yet."""
    client = Redis.from_url("redis://127.0.0.1:1/0")
    watched = Watched(client, KeySpace(), "redis://here", can_change=True)
    site = Site(watched, Guard(frozenset({HOST}), TOKEN), hub=hub)
    return application(site, Watcher(watched, hub, NoLevers()))


def scope(method: str, path: str, **headers: str) -> dict[str, Any]:
    given = {"host": HOST, "origin": f"http://{HOST}", "authorization": f"Bearer {TOKEN}"} | headers
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
        "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "scheme": "http",
        "headers": [(name.encode(), text.encode()) for name, text in given.items()],
    }  # fmt: skip


async def post(body: bytes, **headers: str) -> tuple[int, str]:
    """Send this body as a change of dead letters; return the reply's status and text."""
    messages: list[Message] = []
    all_headers = {"content-type": "application/json", "content-length": str(len(body))} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    await console(Hub())(scope("POST", "/api/letters", **all_headers), receive, send)
    return messages[0]["status"], b"".join(one.get("body", b"") for one in messages[1:]).decode()


async def test_a_change_of_missing_dead_letters_changes_none() -> None:
    assert await post(json.dumps(CHANGE).encode()) == (200, '{"done":0}')


@pytest.mark.parametrize("letter", ["\u0661-\u0661", f"{2**64}-0", "0-0", "1", "+", "1-1\n"])
async def test_a_letter_with_an_id_that_no_entry_has_is_refused(letter: str) -> None:
    body = json.dumps(CHANGE | {"letters": [letter]}).encode()
    assert await post(body) == (400, "a dead letter's ID is two numbers, as 1795408304204-0")


async def test_a_change_is_json_and_reports_it() -> None:
    """A form on another site can send other content types without a CORS preflight."""
    body = json.dumps(CHANGE).encode()
    assert (await post(body, content_type="text/plain"))[0] == 415
    assert (await post(b"not json"))[0] == 400


@pytest.mark.parametrize("length", [str(MOST_BODY + 1), "", "many"])
async def test_a_change_that_is_too_long_or_of_unknown_length_is_not_read(length: str) -> None:
    assert (await post(b"{}", content_length=length))[0] == 413


async def test_a_change_of_more_dead_letters_than_a_page_shows_is_refused() -> None:
    for count, status in ((MOST_DEAD_LETTERS, 200), (MOST_DEAD_LETTERS + 1, 400)):
        body = json.dumps(CHANGE | {"letters": ["1-1"] * count}).encode()
        assert (await post(body))[0] == status


@pytest.mark.parametrize("version", ["2.3", "2.4"])  # Starlette's code differs by version
async def test_a_client_that_reads_no_event_is_disconnected(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SLOW_S", 0.05)
    hub = Hub()

    async def receive() -> Message:
        return await asyncio.Event().wait() or {}

    async def send(message: Message) -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        request = scope("GET", "/events") | {"asgi": {"version": "3.0", "spec_version": version}}
        await console(hub)(request, receive, send)
    assert len(hub) == 0
