"""The exchange over REST. One client for everything the bridge asks, within one budget.

One call, one answer. What goes wrong is raised as RestError, whose class says what to do: all of
it is worth asking again but RestRefused. After HTTP 429 the budget itself is closed for as long as
the exchange says, or for longer and longer: the next requests wait there.

Bodies come as they are. A CDN stands before the exchange and may answer with something older than
the socket: `fresh` goes past it.
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

# The exchange allows 2,000 a minute, and 30 of historical data; less is used, for it may count
# some that others of this account or address have sent.
A_MINUTE_S = 60.0
REQUESTS_A_MINUTE = 1_800
HISTORICAL_A_MINUTE = 27
HISTORICAL = ("/api/v1/klines", "/api/v1/trades", "/wapi/v1/history/")
BUSY_BACKOFF_S = (1.0, 60.0)
LONGEST_PAUSE_S = 300.0  # whatever Retry-After says
MAX_SHOWN = 160


class RestError(Transient):
    """No usable answer; asking again may help."""


class RestRefused(RestError):
    """No (4xx): asking the same again soon does not help.

    `is_final`: the exchange itself has understood and will not. Another no may be that of a CDN or
    a firewall before it, or of rights and clocks, and may pass.
    """

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Rest:
    """The exchange's REST side. Use as an async context manager."""

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
        """`clock_ms` is the exchange's clock, which signatures need. Raises ConfigError where the
        environment names a proxy that is none.
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
        """The body of a public endpoint; `fresh`: from the exchange itself, past any cache."""
        wanted = dict(params or {})
        if fresh:
            wanted["_"] = f"{self._clock_ms()}-{next(self._nonces)}"
        async with self._gate.acquire(urgency, self._windows(path)):
            return await self._request(path, wanted, {})

    async def get_signed(
        self, path: str, instruction: str, params: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of an endpoint of the account. Signed when its turn has come."""
        signer = self._signer
        if signer is None:
            raise RestRefused(f"{path} needs the account's keys", is_final=True)
        wanted = params or {}
        async with self._gate.acquire(Urgency.ACCOUNT, self._windows(path)):
            headers = rest_headers(
                signer.public_key, signer.sign, instruction, wanted, self._clock_ms(),
                self._window_ms,
            )  # fmt: skip
            return await self._request(path, wanted, headers)

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
        asked_s = asyncio.get_running_loop().time()
        client = self._client
        try:
            async with (
                asyncio.timeout(self._timeout_s),  # a body that trickles in has an end, too
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
        said = f"GET {path}: HTTP {answer.status_code} {_shown(body)}".rstrip()
        if answer.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            raise RestError(f"{said} (next try in {self._pause(path, answer, asked_s):.0f} s)")
        if answer.is_client_error and answer.status_code not in (408, 425):
            is_final = answer.status_code == httpx2.codes.BAD_REQUEST
            raise RestRefused(said, is_final=is_final)
        raise RestError(said)

    async def _read_certificates_again(self, used: httpx2.AsyncClient) -> None:
        """A client reads them once, and the files may be others by now."""
        if self._client is used:
            # Where they cannot be read just now, the next failure tries again.
            with suppress(ConfigError):
                self._client = http_client(self._base_url, self._timeout_s)
                await used.aclose()

    def _pause(self, path: str, answer: httpx2.Response, asked_s: float) -> float:
        """Too often: close the narrowest budget that this request counts for. Returns for how
        long.

        Of several requests that were under way at once, only the first refusal tells something new.
        """
        self.counters.too_often += 1
        window = self._windows(path)[-1]
        now_s = asyncio.get_running_loop().time()
        pause_s = retry_after_s(answer.headers.get("Retry-After", ""))
        if pause_s is None and asked_s <= window.closed_at_s:
            return max(0.0, window.free_at_s() - now_s)
        if pause_s is None:
            pause_s = window.busy.next_s()
        pause_s = min(pause_s, LONGEST_PAUSE_S)
        window.close(now_s, now_s + pause_s)
        return pause_s


def _shown(body: bytes) -> str:
    return " ".join(body[: 4 * MAX_SHOWN].decode(errors="replace").split())[:MAX_SHOWN]
