"""The client of the exchange's REST API, one for all requests of a bridge, within one budget.

A failure is raised as RestError; the request may be repeated, except after RestRefused. After HTTP
429 the budget is closed for as long as the exchange requests, or for growing pauses: further
requests wait.

Bodies are returned unchanged. A CDN in front of the exchange may answer with an older body than the
socket: `fresh` bypasses its cache.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Self

import httpx2

from bridge.core.counters import RestCounters
from bridge.errors import ConfigError, Transient
from bridge.feed.limits import Gate, Urgency, Window, retry_after_s
from bridge.protocol.signing import Signer, rest_headers
from bridge.runtime.backoff import Backoff
from bridge.runtime.http_client import BadBody, http_client, read_body

# The exchange allows 2,000 requests a minute, and 30 for historical data; fewer are used, since it
# may count those of other programs with this account or address.
A_MINUTE_S = 60.0
REQUESTS_A_MINUTE = 1_800
HISTORICAL_A_MINUTE = 27
HISTORICAL = ("/api/v1/klines", "/api/v1/trades", "/wapi/v1/history/")
BUSY_BACKOFF_S = (1.0, 60.0)
LONGEST_PAUSE_S = 300.0  # limits Retry-After
MAX_SHOWN = 160


class RestError(Transient):
    """No usable response; repeating the request may help."""


class RestRefused(RestError):
    """A refusal (4xx): repeating the request soon does not help.

    `is_final`: the exchange itself understood and refused it (400). Any other refusal may be that
    of a CDN or firewall, or be due to rights or clocks, and may pass.
    """

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Rest:
    """The REST client. Use as an async context manager."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float,
        window_ms: int,
        clock_ms: Callable[[], int],
        chance: random.Random,
        signer: Signer | None = None,
    ) -> None:
        """`clock_ms`: the exchange's clock, for signatures. Raises ConfigError if the environment
        has an invalid proxy.
        """
        self.counters = RestCounters()
        self._base_url = base_url
        self._client = http_client(base_url, timeout_s)
        self._timeout_s = timeout_s
        self._gate = Gate()
        self._all, self._historical = (
            Window(limit, A_MINUTE_S, Backoff(*BUSY_BACKOFF_S, chance))
            for limit in (REQUESTS_A_MINUTE, HISTORICAL_A_MINUTE)
        )
        self._nonces = count()
        self._window_ms = window_ms
        self._clock_ms = clock_ms
        self._signer = signer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def get(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        urgency: Urgency = Urgency.OTHER,
        fresh: bool = False,
    ) -> bytes:
        """The body of a public endpoint; `fresh`: bypass any cache. Raises RestError."""
        query = dict(params or {})
        if fresh:
            query["_"] = f"{self._clock_ms()}-{next(self._nonces)}"
        async with self._gate.acquire(urgency, self._windows(path)):
            return await self._request(path, query, {})

    async def get_signed(
        self, path: str, instruction: str, params: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of an endpoint of the account. It is signed directly before it is sent. Raises
        RestError.
        """
        signer = self._signer
        if signer is None:
            raise RestRefused(f"{path} needs the account's keys", is_final=True)
        query = params or {}
        async with self._gate.acquire(Urgency.ACCOUNT, self._windows(path)):
            headers = rest_headers(
                signer.public_key, signer.sign, instruction, query, self._clock_ms(),
                self._window_ms,
            )  # fmt: skip
            return await self._request(path, query, headers)

    def _windows(self, path: str) -> Sequence[Window]:
        return (self._all, self._historical) if path.startswith(HISTORICAL) else (self._all,)

    async def _request(
        self, path: str, params: Mapping[str, str], headers: Mapping[str, str]
    ) -> bytes:
        self.counters.requests += 1
        try:
            return await self._answer(path, params, headers)
        except RestRefused:
            self.counters.refused += 1
            raise
        except RestError:
            self.counters.failed += 1
            raise

    async def _answer(
        self, path: str, params: Mapping[str, str], headers: Mapping[str, str]
    ) -> bytes:
        sent_s = asyncio.get_running_loop().time()
        client = self._client
        try:
            async with (
                asyncio.timeout(self._timeout_s),  # limits the whole body, not each read
                client.stream("GET", path, params=dict(params), headers=dict(headers)) as answer,
            ):
                body = await read_body(answer)
        except httpx2.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                await self._read_certificates_again(client)
            raise RestError(f"GET {path}: {type(error).__name__} {error}".rstrip()) from None
        except BadBody as error:
            raise RestError(f"GET {path}: {error}") from None
        except TimeoutError:
            raise RestError(f"GET {path}: no answer within {self._timeout_s:g} s") from None
        if answer.is_success:
            for window in self._windows(path):
                window.busy.reset()
            return body
        reason = f"GET {path}: HTTP {answer.status_code} {_shown(body)}".rstrip()
        if answer.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            raise RestError(f"{reason} (next try in {self._pause(path, answer, sent_s):.0f} s)")
        # 408 (timeout) and 425 (too early) may succeed when repeated.
        if answer.is_client_error and answer.status_code not in (408, 425):
            is_final = answer.status_code == httpx2.codes.BAD_REQUEST
            raise RestRefused(reason, is_final=is_final)
        raise RestError(reason)

    async def _read_certificates_again(self, used: httpx2.AsyncClient) -> None:
        """Replace the client: it reads certificates once, and their files may have changed."""
        if self._client is used:
            # If they cannot be read now, the next failure tries again.
            with suppress(ConfigError):
                self._client = http_client(self._base_url, self._timeout_s)
                await used.aclose()

    def _pause(self, path: str, answer: httpx2.Response, sent_s: float) -> float:
        """Close the smallest window of a request that was refused with 429. Returns for how long,
        in seconds.

        Of several concurrent requests, only the first refusal increases the pause.
        """
        self.counters.too_often += 1
        window = self._windows(path)[-1]
        now_s = asyncio.get_running_loop().time()
        pause_s = retry_after_s(answer.headers.get("Retry-After", ""))
        if pause_s is None and sent_s <= window.closed_at_s:
            return max(0.0, window.free_at_s() - now_s)
        if pause_s is None:
            pause_s = window.busy.next_s()
        pause_s = min(pause_s, LONGEST_PAUSE_S)
        window.close(now_s, now_s + pause_s)
        return pause_s


def _shown(body: bytes) -> str:
    return " ".join(body[: 4 * MAX_SHOWN].decode(errors="replace").split())[:MAX_SHOWN]
