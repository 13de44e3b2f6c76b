"""Asking over real sockets: a server that is slow, too busy, endless, or answers with rubbish."""

import asyncio
import random
import time

import pytest

from bridge.feed import rest as rest_module
from bridge.feed.clock import ExchangeClock
from bridge.feed.rest import Rest, RestError, RestRefused
from tests.support.eventually import eventually_async
from tests.support.rest_answers import answering, http


async def test_a_body_comes_as_it_is() -> None:
    async with answering(lambda _: http("200 OK", b"1788285151083")) as (rest, _):
        assert await rest.get("/api/v1/time") == b"1788285151083"


async def test_past_the_cache_each_request_is_another() -> None:
    async with answering(lambda _: http("200 OK", b"[]")) as (rest, server):
        for _ in range(2):
            await rest.get("/api/v1/trades/history", {"symbol": "SOL_USDC"}, fresh=True)

    first, second = server.asked
    assert first.startswith("GET /api/v1/trades/history?symbol=SOL_USDC&_=")
    assert first != second


async def test_too_often_is_waited_for_as_long_as_the_exchange_says() -> None:
    def reply(number: int) -> bytes:
        if number == 1:
            return http("429 Too Many Requests", b"slow down", "Retry-After: 1")
        return http("200 OK", b"[]")

    async with answering(reply) as (rest, _):
        with pytest.raises(RestError, match="HTTP 429 slow down"):
            await rest.get("/api/v1/markets")
        began_s = time.monotonic()
        assert await rest.get("/api/v1/markets") == b"[]"
        assert time.monotonic() - began_s > 0.9


async def test_refusals_of_requests_that_were_under_way_together_are_one_refusal() -> None:
    """Else a moment of HTTP 429 would silence the bridge for a minute."""

    def reply(number: int) -> bytes:
        if number <= 6:
            return http("429 Too Many Requests", b"")
        return http("200 OK", b"{}")

    async with answering(reply) as (rest, server):
        refused = await asyncio.gather(
            *(rest.get("/api/v1/depth", {"symbol": str(n)}) for n in range(6)),
            return_exceptions=True,
        )
        assert [type(error) for error in refused] == [RestError] * 6
        async with asyncio.timeout(2):  # the first pause is a second at most
            assert await rest.get("/api/v1/depth") == b"{}"
        assert len(server.asked) == 7


async def test_too_often_for_history_does_not_stop_the_rest() -> None:
    def reply(number: int) -> bytes:
        if number == 1:
            return http("429 Too Many Requests", b"", "Retry-After: 300")
        return http("200 OK", b"{}")

    async with answering(reply) as (rest, _), asyncio.timeout(10):
        with pytest.raises(RestError, match="429"):
            await rest.get("/api/v1/trades/history", {"symbol": "SOL_USDC"})
        assert await rest.get("/api/v1/depth", {"symbol": "SOL_USDC"}) == b"{}"


async def test_what_is_answered_meanwhile_does_not_shorten_the_wait_for_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rest_module, "BUSY_BACKOFF_S", (0.05, 60.0))
    history: list[str] = []

    def reply(number: int) -> bytes:
        if not history:
            return http("200 OK", b"{}")
        return http("429 Too Many Requests", b"")

    async with answering(reply) as (rest, _):
        began_s = time.monotonic()
        for _ in range(5):
            history.append("asked")
            with pytest.raises(RestError, match="429"):
                await rest.get("/api/v1/trades/history", {"symbol": "SOL_USDC"})
            history.clear()
            await rest.get("/api/v1/depth", {"symbol": "SOL_USDC"})
        # four pauses of at least half of 50, 100, 200 and 400 ms
        assert time.monotonic() - began_s > 0.375


async def test_no_answer_has_an_end() -> None:
    async with answering(lambda _: b"", timeout_s=0.2) as (rest, _):
        with pytest.raises(RestError, match=r"/api/v1/depth: (no answer within|ReadTimeout)"):
            await rest.get("/api/v1/depth")


async def test_an_endless_body_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_module, "MAX_BODY", 10_000)
    async with answering(lambda _: http("200 OK", b"x" * 10_001)) as (rest, _):
        with pytest.raises(RestError, match="larger than 10000 bytes"):
            await rest.get("/api/v1/depth")


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (
            http("400 Bad Request", b"Invalid market\nsymbol"),
            RestRefused,
            "HTTP 400 Invalid market",
        ),
        (http("404 Not Found", b"not found"), RestRefused, "HTTP 404 not found"),
        (http("403 Forbidden", b"<html>no"), RestRefused, "HTTP 403 <html>no"),
        (http("503 Service Unavailable", b"<html>down"), RestError, "HTTP 503 <html>down"),
        (http("302 Found", b"", "Location: http://x/"), RestError, "HTTP 302"),
        (b"rubbish\r\n\r\n", RestError, "RemoteProtocolError"),
        (http("200 OK", b"rubbish", "Content-Encoding: gzip"), RestError, "DecodingError"),
    ],
)
async def test_what_goes_wrong_is_said(answer: bytes, error: type[RestError], said: str) -> None:
    async with answering(lambda _: answer) as (rest, _):
        with pytest.raises(RestError, match=said) as raised:
            await rest.get("/api/v1/depth")
    assert type(raised.value) is error
    assert getattr(raised.value, "is_final", None) == (
        answer.startswith(b"HTTP/1.1 400") if error is RestRefused else None
    )


async def test_a_server_that_is_away_is_an_error_worth_asking_again() -> None:
    async with answering(lambda _: b"") as (_, server):
        url = server.url
    rest = Rest(url, timeout_s=1, window_ms=5000, clock_ms=lambda: 1, chance=random.Random(1))
    async with rest:
        with pytest.raises(RestError, match="ConnectError"):
            await rest.get("/api/v1/depth")


@pytest.mark.parametrize("body", [b"9" * 400, b"[" * 100_000, b"1e999", b"soon", b""])
async def test_a_time_that_is_none_teaches_nothing(body: bytes) -> None:
    async with answering(lambda _: http("200 OK", body)) as (rest, server):
        clock = ExchangeClock(rest, lambda: time.time_ns() // 1000, lambda: None)
        running = asyncio.create_task(clock.run())
        await eventually_async(lambda: server.asked, "it is asked")
        clock.doubt()
        await eventually_async(lambda: running.done() or len(server.asked) > 1, "and once more")

        assert clock.offset_us is None
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
