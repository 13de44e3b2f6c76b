"""tests/conftest.py refuses connections in unit tests, but allows an event loop."""

import asyncio
import socket

import pytest


def test_a_connection_is_refused() -> None:
    with socket.socket() as one, pytest.raises(AssertionError, match="opened a connection"):
        one.connect(("127.0.0.1", 9))


async def test_the_loop_works_and_cannot_connect_either() -> None:
    await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="opened a connection"):
        await asyncio.open_connection("127.0.0.1", 9)
