"""The three programs of the exchange's public Python guide run against the simulator.

Indentation, the signed string and the URL are corrected. The private program also runs as printed,
where a web page had damaged the signed string: that one is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.simulator_process import RunningSimulator, running_simulator_sync

URL = "wss://ws.backpack.exchange"
LIMIT_S = 30.0

IMPORTS = """
import json
import asyncio
import websockets
import base64
from time import time
import os
from cryptography.hazmat.primitives.asymmetric import ed25519
from dotenv import load_dotenv, find_dotenv
"""

PUBLIC = (
    IMPORTS
    + """
async def subscribe_to_public_stream():
    uri = "wss://ws.backpack.exchange"
    async with websockets.connect(uri) as websocket:
        # Subscribe to the depth stream for SOL/USDC
        subscribe_message = {
            "method": "SUBSCRIBE",
            "params": ["depth.SOL_USDC"]
        }
        await websocket.send(json.dumps(subscribe_message))
        print(f"Subscribed to depth.SOL_USDC stream")
        # Process incoming messages
        while True:
            response = await websocket.recv()
            data = json.loads(response)
            print(f"Received: {data}")

asyncio.run(subscribe_to_public_stream())
"""
)

SEVERAL = (
    IMPORTS
    + """
async def subscribe_to_multiple_streams():
    uri = "wss://ws.backpack.exchange"
    async with websockets.connect(uri) as websocket:
        # Subscribe to multiple streams
        subscribe_message = {
            "method": "SUBSCRIBE",
            "params": ["depth.SOL_USDC", "trade.SOL_USDC"]
        }
        await websocket.send(json.dumps(subscribe_message))
        print(f"Subscribed to multiple streams")
        # Process incoming messages
        while True:
            response = await websocket.recv()
            data = json.loads(response)
            print(f"Received: {data}")
            # Process different stream data based on the stream name
            if "stream" in data and "data" in data:
                stream_name = data["stream"]
                stream_data = data["data"]
                if stream_name.startswith("depth."):
                    # Process order book data
                    print(f"Order book update: {stream_data}")
                elif stream_name.startswith("trade."):
                    # Process trade data
                    print(f"Trade update: {stream_data}")

asyncio.run(subscribe_to_multiple_streams())
"""
)

PRIVATE = (
    IMPORTS
    + """
# For demonstration purposes only - don't hardcode keys in production
public_key = "5+yQgwU0ZdJ/9s+GXfuPFfo7yQQpl9CgvQedJXne30o="
secret_key = "TDSkv44jf/iD/QCKkyCdixO+p1sfLXxk+PZH7mW/ams="
# Create private key from secret key
private_key = ed25519.Ed25519PrivateKey.from_private_bytes(
    base64.b64decode(secret_key)
)

async def subscribe_to_private_stream():
    uri = "wss://ws.backpack.exchange"
    # Generate authentication parameters
    timestamp = int(time() * 1e3)  # Unix time in milliseconds
    window = "5000"  # Time window in milliseconds
    # Create signature string
    sign_str = f"instruction=subscribe&timestamp={timestamp}&window={window}"
    # Sign the string
    signature_bytes = private_key.sign(sign_str.encode())
    encoded_signature = base64.b64encode(signature_bytes).decode()
    async with websockets.connect(uri) as websocket:
        # Subscribe to the order stream with authentication
        subscribe_message = {
            "method": "SUBSCRIBE",
            "params": ["account.orderUpdate"],
            "signature": [public_key, encoded_signature, str(timestamp), window]
        }
        await websocket.send(json.dumps(subscribe_message))
        print(f"Subscribed to account.orderUpdate stream")
        # Process incoming messages
        while True:
            response = await websocket.recv()
            data = json.loads(response)
            print(f"Received: {data}")
            # Process order updates
            if "stream" in data and data["stream"] == "account.orderUpdate" and "data" in data:
                order_data = data["data"]
                print(f"Order update: {order_data}")

asyncio.run(subscribe_to_private_stream())
"""
)


@pytest.fixture(scope="module")
def sim() -> Iterator[RunningSimulator]:
    with running_simulator_sync("--rate", "200") as running:
        yield running


@contextlib.asynccontextmanager
async def program(text: str, url: str, folder: Path) -> AsyncIterator[asyncio.StreamReader]:
    """Run a program's text as a user would; its output."""
    path = folder / "program.py"
    path.write_text(text.replace(URL, url))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.terminate()
        await process.wait()


async def line_with(printed: asyncio.StreamReader, text: str) -> str:
    async with asyncio.timeout(LIMIT_S):
        async for line in printed:
            if text in line.decode():
                return line.decode()
    raise AssertionError(f"the program ended without printing {text!r}")


async def test_one_public_stream(sim: RunningSimulator, tmp_path: Path) -> None:
    async with program(PUBLIC, sim.ws_url, tmp_path) as printed:
        assert await line_with(printed, "Subscribed") == "Subscribed to depth.SOL_USDC stream\n"
        assert "'stream': 'depth.SOL_USDC'" in await line_with(printed, "Received: ")


async def test_several_public_streams(sim: RunningSimulator, tmp_path: Path) -> None:
    async with program(SEVERAL, sim.ws_url, tmp_path) as printed:
        await line_with(printed, "Order book update: {")
        await line_with(printed, "Trade update: {")


async def test_a_private_stream(sim: RunningSimulator, tmp_path: Path) -> None:
    async with program(PRIVATE, sim.ws_url, tmp_path) as printed:
        assert "'e': 'order" in await line_with(printed, "Order update: {'E'")


async def test_the_private_program_as_printed_is_refused(
    sim: RunningSimulator, tmp_path: Path
) -> None:
    damaged = PRIVATE.replace("&timestamp=", "\N{MULTIPLICATION SIGN}tamp=")
    assert damaged != PRIVATE
    async with program(damaged, sim.ws_url, tmp_path) as printed:
        line = await line_with(printed, "Received: ")
        assert "{'code': 4003, 'message': 'Invalid signature'}" in line
