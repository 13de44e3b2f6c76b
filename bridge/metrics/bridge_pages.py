"""The pages of a bridge: `/metrics`, `/healthz`, `/readyz`.

They describe this process alone, from its own memory, so they work while Redis, the exchange, or
both are unavailable. They do not delay messages: the status is collected in steps on the loop, and
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
    """Provides a bridge's own status."""

    async def status_in_steps(self) -> Mapping[str, Any]:
        """The status, collected in steps with other tasks running in between."""
        ...


class BridgePages:
    """Makes pages on request, one at a time: concurrent requests wait for each other."""

    paths: Sequence[str] = (METRICS, ALIVE, READY)

    def __init__(self, reporter: Reporter, *, per_stream: bool) -> None:
        self._reporter = reporter
        self._per_stream = per_stream
        self._lock = asyncio.Lock()

    async def page(self, path: str) -> Page:
        if path == ALIVE:
            return alive()
        async with self._lock:
            status = await self._reporter.status_in_steps()
            make = self._metrics if path == METRICS else _ready
            return await asyncio.to_thread(make, status)

    def _metrics(self, status: Mapping[str, Any]) -> Page:
        if not exposition.is_installed():
            body = exposition.MISSING.encode() + b"\n"
            return Page(HTTPStatus.NOT_IMPLEMENTED, TEXT, body)
        parsed = BridgeStatus.model_validate(status)
        body = exposition.render(families(parsed, per_stream=self._per_stream))
        return Page(HTTPStatus.OK, exposition.CONTENT_TYPE, body)


def _ready(status: Mapping[str, Any]) -> Page:
    wrong = troubles(BridgeStatus.model_validate(status))
    return readiness([(each.reason.value, masked_text(each.text)) for each in wrong])
