"""What `/healthz` and `/readyz` say, of whichever process.

`/healthz`: the event loop turns. It must not depend on Redis or the exchange: a process that waits
for them rightly would be restarted, and each restart of a bridge is a gap. `/readyz`: the process
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
    """This was answered, so the loop turns."""
    return _page(HTTPStatus.OK, {"alive": True})


def readiness(reasons: Sequence[tuple[str, str]]) -> Page:
    """200 where there are none; else 503, with each reason's name and a sentence."""
    told = [{"reason": reason, "text": text} for reason, text in reasons]
    status = HTTPStatus.SERVICE_UNAVAILABLE if told else HTTPStatus.OK
    return _page(status, {"ready": not told, "reasons": told})


def _page(status: HTTPStatus, value: Any) -> Page:
    return Page(status, JSON, json.dumps(value).encode() + b"\n")
