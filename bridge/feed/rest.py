"""Asking the exchange over REST: depth, and the account (signed). One call, one answer.

Requests are paced; failures come back as RestError, which says what to do with it by its class:
all of them are worth trying again but RestRefused.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Self

import httpx

from bridge.errors import Transient
from bridge.protocol.signing import Sign, rest_headers

MAX_SHOWN = 160


class RestError(Transient):
    """No usable answer; asking again may help."""


class RestRefused(RestError):
    """The exchange understood and says no (4xx): asking the same again does not help."""


class Rest:
    """The exchange's REST side. Use as an async context manager."""

    def __init__(
        self,
        base_url: str,
        *,
        per_second: float,
        window_ms: int,
        clock_ms: Callable[[], int],
        public_key: str = "",
        sign: Sign | None = None,
    ) -> None:
        self._client = httpx.AsyncClient(base_url=base_url, timeout=10.0)
        self._interval_s = 1 / per_second
        self._free_at_s = 0.0
        self._window_ms = window_ms
        self._clock_ms = clock_ms
        self._public_key = public_key
        self._sign = sign

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """The body of a public endpoint."""
        return await self._ask(path, params or {}, {})

    async def get_signed(
        self, path: str, instruction: str, params: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of an endpoint of the account."""
        if self._sign is None:
            raise RestRefused(f"{path} needs the account's keys")
        wanted = params or {}
        headers = rest_headers(
            self._public_key, self._sign, instruction, wanted, self._clock_ms(), self._window_ms
        )
        return await self._ask(path, wanted, headers)

    async def _ask(self, path: str, params: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        await self._pace()
        try:
            answer = await self._client.get(path, params=dict(params), headers=dict(headers))
        except httpx.HTTPError as error:
            raise RestError(f"GET {path}: {type(error).__name__} {error}".rstrip()) from None
        if answer.is_success:
            return answer.content
        said = f"GET {path}: HTTP {answer.status_code} {answer.text[:MAX_SHOWN]}"
        if answer.is_client_error and answer.status_code not in (408, 425, 429):
            raise RestRefused(said)
        raise RestError(said)

    async def _pace(self) -> None:
        """Wait for this request's slot: so many a second, in order of asking."""
        now_s = asyncio.get_running_loop().time()
        slot_s = max(now_s, self._free_at_s)
        self._free_at_s = slot_s + self._interval_s
        await asyncio.sleep(slot_s - now_s)
