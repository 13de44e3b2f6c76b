"""Rendering a bridge's metrics page does not block the event loop."""

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from bridge.app import Bridge
from bridge.metrics import exposition
from bridge.metrics.bridge_pages import BridgePages
from bridge.metrics.exposition import Family
from bridge.runtime.config import Config

MANY = 250


def many_streams() -> Config:
    markets = [f"M{number}_USDC" for number in range(MANY)]
    return Config.model_validate(
        {
            "streams": [{"types": ["trade", "bookTicker"], "markets": markets}],
            "journal": {"enabled": False},
            "metrics": {"per_stream": True},
        }
    )


class Turns:
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    async def go_round(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


async def test_page_of_2000_series_is_made_in_steps_and_in_a_thread_while_the_loop_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("prometheus_client", reason="the extra `metrics`")
    bridge = Bridge(many_streams(), None, "redis://127.0.0.1:1/0")
    pages, turns = BridgePages(bridge, per_stream=True), Turns()
    rendered_in: list[int] = []
    per_turn: list[int] = []
    at_turn: list[int] = []
    render, make = exposition.render, Bridge._streams_status

    def noted_render(families: Iterable[Family]) -> bytes:
        rendered_in.append(threading.get_ident())
        return render(families)

    def noted_make(one: Bridge, queues: Any, sparse: Any) -> Any:
        per_turn.append(len(queues))
        at_turn.append(turns.count)
        return make(one, queues, sparse)

    monkeypatch.setattr(exposition, "render", noted_render)
    monkeypatch.setattr(Bridge, "_streams_status", noted_make)
    async with asyncio.TaskGroup() as tasks:
        going = tasks.create_task(turns.go_round())
        page = await pages.page("/metrics")
        going.cancel()

    series = [line for line in page.body.splitlines() if not line.startswith(b"#")]
    assert len(series) > 2_000
    assert sum(per_turn) >= 2 * MANY
    assert max(per_turn) <= 50, "a turn of the loop makes more than 50 series"
    assert len(set(at_turn)) == len(at_turn), "two parts were made in one turn of the loop"
    assert rendered_in, "the text was not rendered"
    assert threading.get_ident() not in rendered_in, "the loop's thread rendered the text"
