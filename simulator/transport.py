"""Below the protocol: whether a client is still connected, and ending a connection without a
message.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from aiohttp import web

POLL_EVERY_S = 0.05
NO_LINGER = struct.pack("ii", 1, 0)  # closing such a socket sends a reset


async def until_disconnected(request: web.Request, is_over: Callable[[], bool]) -> None:
    """Wait silently until the client has disconnected or `is_over()`."""
    while True:
        transport = request.transport
        if transport is None or transport.is_closing() or is_over():
            return
        await asyncio.sleep(POLL_EVERY_S)


def abort(request: web.Request, *, reset: bool) -> None:
    """End the connection now, with a reset or a plain end."""
    transport = request.transport
    if transport is None:
        return
    handle = transport.get_extra_info("socket")
    if reset and handle is not None:
        with contextlib.suppress(OSError):
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()
