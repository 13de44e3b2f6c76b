"""Whether this machine's clock agrees with the exchange's, for signatures and gap times."""

import time

import httpx2

from bridge.errors import ConfigError
from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.http_client import fetch, http_client
from bridge.runtime.skew import SKEWED_MS, describe_skew

SUBJECT = "clock"
PATH = "/api/v1/time"  # text: ms since 1970


async def check_clock(rest_url: str, timeout_s: float) -> Finding:
    """Compare the clocks; an unreachable exchange gives NOT_CHECKED."""
    try:
        async with http_client(rest_url, timeout_s) as client:
            await fetch(client, PATH, timeout_s)  # connects, so that the timed request does not
            before_ms = time.time() * 1000
            body = await fetch(client, f"{PATH}?_={before_ms}", timeout_s)
            after_ms = time.time() * 1000
            exchange_ms = float(body)
    except (ConfigError, httpx2.HTTPError, ValueError) as error:
        reason = str(error) or type(error).__name__
        return Finding(Level.NOT_CHECKED, SUBJECT, f"the exchange's time is not known: {reason}")
    return judge_clock(exchange_ms - (before_ms + after_ms) / 2)


def judge_clock(offset_ms: float) -> Finding:
    """`offset_ms`: how far the exchange's clock is ahead of this machine's."""
    if abs(offset_ms) < SKEWED_MS:
        return Finding(Level.OK, SUBJECT, "agrees with the exchange's to a second")
    return Finding(
        Level.WARNING,
        SUBJECT,
        describe_skew(offset_ms),
        "set it right (NTP); signatures are made with the exchange's time until then",
    )
