"""Starts and ends faults of a running simulator, and reads its counters."""

from typing import Any

from tests.support import plain_http
from tests.support.eventually import eventually_async
from tests.support.simulator_process import RunningSimulator


async def order(exchange: RunningSimulator, fault: str, **settings: object) -> int:
    """Start a fault; its number."""
    async with plain_http.client(exchange.rest_url) as client:
        answer = await client.post("/simulator/faults", json={"fault": fault, **settings})
    assert answer.is_success, answer.text
    return int(answer.json()["number"])


async def end(exchange: RunningSimulator, number: int) -> None:
    """End a fault."""
    async with plain_http.client(exchange.rest_url) as client:
        await client.delete(f"/simulator/faults/{number}")


async def stats(exchange: RunningSimulator) -> dict[str, Any]:
    """The simulator's counters."""
    async with plain_http.client(exchange.rest_url) as client:
        return dict((await client.get("/simulator/stats")).json())


async def ticked(exchange: RunningSimulator, stream: str, count: int) -> None:
    """Wait until the exchange has sent `count` more frames of a stream."""
    before = (await stats(exchange))["streams"].get(stream, 0)

    async def is_past() -> bool:
        return bool((await stats(exchange))["streams"].get(stream, 0) >= before + count)

    await eventually_async(is_past, f"the exchange has sent {count} more of {stream}")
