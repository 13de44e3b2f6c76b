"""An independent client of the exchange for tests: websockets, httpx2, and its own signing.

Shares with the simulator only the two demo secrets of the public guide.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect

PUBLIC_KEY = "zDIJj9qneWIY0IYZ5aXoHcNMCm+XDhVcTssiT0HyY0A="
SECRET_KEY = "4odxgSUxFrC/zsKWZF4OQwYAgnNu9hnWH3NxWfLAPz4="
LIMIT_S = 40.0  # for random market events, on a machine that may be busy


class Listener:
    """A connection, and every frame that it has received."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.raw: list[str] = []

    async def subscribe(self, *names: str, **members: object) -> None:
        await self.ask("SUBSCRIBE", *names, **members)

    async def ask(self, method: str, *names: str, **members: object) -> None:
        await self.socket.send(json.dumps({"method": method, "params": list(names), **members}))

    async def next(self) -> dict[str, Any]:
        """Receive the next frame."""
        text = await asyncio.wait_for(self.socket.recv(), LIMIT_S)
        assert isinstance(text, str)
        self.raw.append(text)
        frame: dict[str, Any] = json.loads(text)
        return frame

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next frame for which `wanted` is true, within LIMIT_S."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                frame = await self.next()
                if wanted(frame):
                    return frame

    async def until_stream(self, stream: str) -> dict[str, Any]:
        """The data of the stream's next frame."""
        frame = await self.until(lambda frame: frame.get("stream") == stream)
        data: dict[str, Any] = frame["data"]
        return data


@contextlib.asynccontextmanager
async def listening(url: str, **options: Any) -> AsyncIterator[Listener]:
    async with connect(url, **options) as socket:
        yield Listener(socket)


def signature(instruction: str = "subscribe", **params: str) -> list[str]:
    """A fresh signature of the first demo key, as the four strings of a subscription."""
    timestamp, window = str(time.time_ns() // 1_000_000), "5000"
    middle = "".join(f"&{name}={params[name]}" for name in sorted(params))
    text = f"instruction={instruction}{middle}&timestamp={timestamp}&window={window}"
    secret = Ed25519PrivateKey.from_private_bytes(base64.b64decode(SECRET_KEY))
    signed = base64.b64encode(secret.sign(text.encode())).decode()
    return [PUBLIC_KEY, signed, timestamp, window]


async def get_signed(
    client: httpx2.AsyncClient, path: str, instruction: str, **params: str
) -> httpx2.Response:
    key, signed, timestamp, window = signature(instruction, **params)
    headers = {
        "X-API-Key": key,
        "X-Signature": signed,
        "X-Timestamp": timestamp,
        "X-Window": window,
    }
    return await client.get(path, params=params, headers=headers)
