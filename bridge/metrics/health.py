"""The replies of `/healthz` and `/readyz`, for every kind of process.

`/healthz`: the event loop runs. It must not depend on Redis or the exchange: a process that rightly
waits for them would be restarted, and each restart of a bridge is a gap. `/readyz`: the process
does its work, or why it does not.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from bridge.metrics.pages import JSON, Page

METRICS = "/metrics"
ALIVE = "/healthz"
READY = "/readyz"


def alive() -> Page:
    """200: a reply proves that the loop runs."""
    return _page(HTTPStatus.OK, {"alive": True})


def readiness(reasons: Sequence[tuple[str, str]]) -> Page:
    """200 without reasons; else 503, with each reason's name and a sentence."""
    listed = [{"reason": reason, "text": text} for reason, text in reasons]
    status = HTTPStatus.SERVICE_UNAVAILABLE if listed else HTTPStatus.OK
    return _page(status, {"ready": not listed, "reasons": listed})


def _page(status: HTTPStatus, value: Any) -> Page:
    return Page(status, JSON, json.dumps(value).encode() + b"\n")
