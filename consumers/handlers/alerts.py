"""Sample: call a webhook for price moves and for gaps.

    ALERTS_WEBHOOK_URL=https://hooks.example.com/… python -m consumers run alerts --from new

An effect outside Redis that cannot be exactly once: the webhook may have received an alert although
its response was lost. So each alert is sent at least once, always with the same `Idempotency-Key`
(stream and entry ID), by which the receiver can drop duplicates. Every attempt has a time limit.
A failure is retried, a few times at once and then by the kit with growing pauses; the stream waits,
so alerts arrive in order, and `happened_at` has the time of the event. Other streams continue.

A move is measured against the lowest and the highest price of the current window; a new window
begins after its end, and after each alert. The address is a secret: it comes from the environment,
or from the file that ALERTS_WEBHOOK_URL_FILE names, and is in no log and in no error.
"""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx2
import structlog

from consumers import ConfigError, Consumer, Delivery, Gap, Trade, secret

_log = structlog.get_logger()

URL, TOKEN = "ALERTS_WEBHOOK_URL", "ALERTS_WEBHOOK_TOKEN"

ATTEMPTS = 3  # per delivery of an entry; then the kit retries, with growing pauses
_PAUSE_S = 0.2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Alert = dict[str, str]


class NotDelivered(Exception):
    """The webhook did not accept an alert; the text has the reason, not the address."""


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # an unmatched bracket
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


class Webhook:
    """Sends alerts by POST as JSON. Any status but 2xx is a failure, redirects included."""

    def __init__(self, url: str, token: str, timeout_s: float) -> None:
        if not _is_address(url):
            raise ConfigError(
                f"{URL}: write the webhook's address, https://…, into the environment"
            )
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s

    async def send(self, key: str, alert: Alert) -> int:
        """Send an alert. Returns the number of attempts. Raises NotDelivered after the last one."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._post(key, alert)
            except NotDelivered:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE_S * attempt)
            else:
                return attempt
        raise AssertionError("unreachable")

    async def _post(self, key: str, alert: Alert) -> None:
        headers = {**self._headers, "Idempotency-Key": key}
        try:
            # A limit for the whole request: a server may send a byte now and then without end.
            async with (
                asyncio.timeout(self._timeout_s),
                httpx2.AsyncClient(verify=_tls()) as client,
                client.stream("POST", self._url, json=alert, headers=headers) as answer,
            ):
                pass  # only the status is read: the body may be endless
        except (TimeoutError, httpx2.TimeoutException):
            raise NotDelivered(f"no answer within {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:  # their texts may quote the address
            raise NotDelivered(f"not reached: {type(error).__name__}") from None
        if not answer.is_success:
            raise NotDelivered(f"answered {answer.status_code}")


@cache
def _tls() -> ssl.SSLContext:
    """The TLS context, made once: loading the certificates blocks the event loop for 50 ms."""
    return httpx2.create_ssl_context()


class Alerts(Consumer):
    """Calls a webhook for price moves and for gaps (its address: ALERTS_WEBHOOK_URL)."""

    name = "alerts"
    mode = "ordered"
    streams = ("*",)

    def __init__(self, percent: str = "1", window_s: str = "60", timeout_s: str = "5") -> None:
        self._percent = _positive("percent", percent)
        self._window_us = int(_positive("window_s", window_s) * 1_000_000)
        limit_s = float(_positive("timeout_s", timeout_s))
        if limit_s * ATTEMPTS >= self.time_limit_s:
            raise ValueError(f"timeout_s={timeout_s}: write less than {self.time_limit_s / 3:g}")
        self._webhook = Webhook(secret(URL), secret(TOKEN), limit_s)
        self._sent = 0

    async def on_trade(self, delivery: Delivery[Trade]) -> None:
        trade, moment_us = delivery.event, delivery.moment_us
        begun_us, low, high = self.state.get("window", (0, trade.price, trade.price))
        if not begun_us or moment_us - begun_us > self._window_us:
            begun_us, low, high = moment_us, trade.price, trade.price
        price = Decimal(trade.price)
        rise, fall = _percent(low, price), _percent(high, price)
        if max(rise, -fall) < self._percent:
            low, high = min(low, trade.price, key=Decimal), max(high, trade.price, key=Decimal)
        else:
            since, change = (low, rise) if rise >= -fall else (high, fall)
            alert = {"percent": f"{change:.2f}", "from_price": since, "price": trade.price}
            move = f"{trade.symbol} {change:+.2f} % within {self._window_us / 1e6:g} s"
            await self._send(delivery, "price_move", f"{move}: {since} → {trade.price}", **alert)
            begun_us, low, high = moment_us, trade.price, trade.price
        if self.state.get("window") != [begun_us, low, high]:
            self.state["window"] = [begun_us, low, high]

    async def on_gap(self, delivery: Delivery[Gap]) -> None:
        """Alert, except for recovered gaps, and for the gap before the start of a stream."""
        gap = delivery.event
        if not gap.recovered and gap.cause != "start":
            what = f"{delivery.stream}: {_missing(gap)} ({gap.cause})"
            await self._send(delivery, "gap", what, cause=gap.cause)

    def made(self) -> str:
        return f"{self._sent} alerts sent of {self.stream}"

    async def _send(self, delivery: Delivery[Any], kind: str, text: str, **more: str) -> None:
        alert = {
            "text": text,
            "kind": kind,
            "stream": delivery.stream,
            "symbol": delivery.event.symbol or "",
            "entry_id": delivery.entry_id,
            "happened_at": _iso(delivery.moment_us),
            **more,
        }
        attempts = await self._webhook.send(f"{delivery.stream}/{delivery.entry_id}", alert)
        self._sent += 1
        where = {"stream": delivery.stream, "entry_id": delivery.entry_id}
        _log.info("alert_sent", kind=kind, attempts=attempts, **where)


def _missing(gap: Gap) -> str:
    if gap.to is not None:
        first = "?" if gap.from_ is None else gap.from_
        return f"{first} to {gap.to} are missing"
    since, until = (_iso(at_us) if at_us else "?" for at_us in (gap.from_us, gap.to_us))
    return f"events from {since} to {until} may be missing"


def _percent(since: str, price: Decimal) -> Decimal:
    """The change in percent; 0 if the earlier price is zero."""
    before = Decimal(since)
    return (price - before) / before * 100 if before else Decimal(0)


def _iso(moment_us: int) -> str:
    try:
        moment = _EPOCH + timedelta(microseconds=moment_us)
    except OverflowError:
        return f"{moment_us} µs"  # an invalid time, in a gap entry written by another program
    return moment.isoformat(timespec="milliseconds")


def _positive(name: str, text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal(0)
    if not (number.is_finite() and number > 0):
        raise ValueError(f"{name}={text}: write a number above 0")
    return number
