"""The pages of a bridge: `/metrics`, `/healthz`, `/readyz`.

They speak of this process alone, from its own memory: they are true while Redis, the exchange, or
both are away. Nothing here is on a message's way; the loop is asked for the numbers in steps, and
the rest is done in a thread.
"""

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from bridge.metrics import exposition
from bridge.metrics.bridge_metrics import families
from bridge.metrics.health import ALIVE, METRICS, READY, alive, readiness
from bridge.metrics.pages import TEXT, Page
from bridge.runtime.masking import masked_text
from bridge.view.facts import BridgeStatus
from bridge.view.troubles import troubles


class Reporter(Protocol):
    """What a bridge says of itself."""

    async def status_in_steps(self) -> Mapping[str, Any]:
        """Its status, made while others have their turns."""
        ...


class BridgePages:
    """Made when they are asked for. Of several who ask at once, one waits for the other: no more
    than one page is in the making.
    """

    paths: Sequence[str] = (METRICS, ALIVE, READY)

    def __init__(self, reporter: Reporter, *, per_stream: bool) -> None:
        self._reporter = reporter
        self._per_stream = per_stream
        self._lock = asyncio.Lock()

    async def page(self, path: str) -> Page:
        if path == ALIVE:
            return alive()
        async with self._lock:
            told = await self._reporter.status_in_steps()
            make = self._metrics if path == METRICS else _ready
            return await asyncio.to_thread(make, told)

    def _metrics(self, told: Mapping[str, Any]) -> Page:
        if not exposition.is_installed():
            body = exposition.MISSING.encode() + b"\n"
            return Page(HTTPStatus.NOT_IMPLEMENTED, TEXT, body)
        status = BridgeStatus.model_validate(told)
        body = exposition.render(families(status, per_stream=self._per_stream))
        return Page(HTTPStatus.OK, exposition.CONTENT_TYPE, body)


def _ready(told: Mapping[str, Any]) -> Page:
    wrong = troubles(BridgeStatus.model_validate(told))
    return readiness([(each.reason.value, masked_text(each.text)) for each in wrong])
