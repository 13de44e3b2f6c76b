"""REST over real sockets: replies that are slow, endless or malformed, and HTTP 429."""

import asyncio
import gzip
import random
import re
import time
import tracemalloc
from pathlib import Path

import pytest

from bridge.feed import rest as rest_module
from bridge.feed.clock import ExchangeClock
from bridge.feed.rest import Rest, RestError, RestRefused
from bridge.journal.zstd import zstd
from bridge.runtime import http_client
from bridge.runtime.checks.finding import Finding
from bridge.runtime.checks.markets import fetch_markets
from tests.support.certificates import new_certificates
from tests.support.eventually import eventually_async
from tests.support.rest_answers import answering, http


async def test_rest_body_is_returned_unchanged() -> None:
    async with answering(lambda _: http("200 OK", b"1788285151083")) as (rest, _):
        assert await rest.get("/api/v1/time") == b"1788285151083"


async def test_fresh_request_differs_from_every_other() -> None:
    async with answering(lambda _: http("200 OK", b"[]")) as (rest, server):
        for _ in range(2):
            await rest.get("/api/v1/trades/history", {"symbol": "SOL_USDC"}, fresh=True)

    first, second = server.request_lines
    assert first.startswith("GET /api/v1/trades/history?symbol=SOL_USDC&_=")
    assert first != second


async def test_http_429_closes_the_budget_for_as_long_as_the_exchange_states() -> None:
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


async def test_http_429_to_concurrent_requests_counts_once() -> None:
    """Otherwise one burst of HTTP 429 would stop all requests for a minute."""

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
        async with asyncio.timeout(20):  # the first pause is at most 1 s
            assert await rest.get("/api/v1/depth") == b"{}"
        assert len(server.request_lines) == 7


async def test_http_429_to_history_does_not_stop_other_requests() -> None:
    def reply(number: int) -> bytes:
        if number == 1:
            return http("429 Too Many Requests", b"", "Retry-After: 300")
        return http("200 OK", b"{}")

    async with answering(reply) as (rest, _), asyncio.timeout(10):
        with pytest.raises(RestError, match="429"):
            await rest.get("/api/v1/trades/history", {"symbol": "SOL_USDC"})
        assert await rest.get("/api/v1/depth", {"symbol": "SOL_USDC"}) == b"{}"


async def test_answers_to_other_requests_do_not_shorten_the_wait_for_history(
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
            history.append("requested")
            with pytest.raises(RestError, match="429"):
                await rest.get("/api/v1/trades/history", {"symbol": "SOL_USDC"})
            history.clear()
            await rest.get("/api/v1/depth", {"symbol": "SOL_USDC"})
        # Four pauses of at least half of 50, 100, 200 and 400 ms.
        assert time.monotonic() - began_s > 0.375


async def test_request_without_an_answer_times_out() -> None:
    async with answering(lambda _: b"", timeout_s=0.2) as (rest, _):
        with pytest.raises(RestError, match=r"/api/v1/depth: (no answer within|ReadTimeout)"):
            await rest.get("/api/v1/depth")


async def test_packed_body_is_unpacked() -> None:
    packed = http("200 OK", gzip.compress(b"a body"), "Content-Encoding: gzip")
    async with answering(lambda _: packed) as (rest, server):
        assert await rest.get("/api/v1/depth") == b"a body"
        assert "accept-encoding: gzip" in server.heads[0].lower().split("\r\n")


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        (b"x" * 10_001, "identity", "larger than 10000 bytes"),
        (gzip.compress(bytes(50_000_000)), "gzip", "larger than 10000 bytes"),
        (gzip.compress(b"a body")[:-9], "gzip", "ends before"),
        (zstd.compress(bytes(1_000_000)), "zstd", "packed as 'zstd', which was not requested"),
        (b"x", "br", "packed as 'br'"),
        (b"x", "gzip, gzip", "packed as 'gzip, gzip'"),
    ],
    ids=["large", "bomb", "cut", "zstd", "br", "twice"],
)
async def test_unusable_body_is_refused_without_being_kept(
    monkeypatch: pytest.MonkeyPatch, body: bytes, encoding: str, expected: str
) -> None:
    monkeypatch.setattr(http_client, "MAX_BODY", 10_000)
    bomb = http("200 OK", body, f"Content-Encoding: {encoding}")
    async with answering(lambda _: bomb) as (rest, server):
        tracemalloc.start()
        with pytest.raises(RestError, match=expected):
            await rest.get("/api/v1/depth")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5_000_000
        listed = await fetch_markets(server.url, 5)
        assert isinstance(listed, Finding)  # the command `check` uses another client
        assert re.search(expected, listed.found)


@pytest.mark.parametrize(
    ("answer", "error", "expected"),
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
        (http("200 OK", b"rubbish", "Content-Encoding: gzip"), RestError, "cannot be unpacked"),
    ],
)
async def test_error_states_what_went_wrong_and_whether_to_retry(
    answer: bytes, error: type[RestError], expected: str
) -> None:
    async with answering(lambda _: answer) as (rest, _):
        with pytest.raises(RestError, match=expected) as raised:
            await rest.get("/api/v1/depth")
    assert type(raised.value) is error
    assert getattr(raised.value, "is_final", None) == (
        answer.startswith(b"HTTP/1.1 400") if error is RestRefused else None
    )


async def test_server_that_is_unavailable_is_an_error_worth_retrying() -> None:
    async with answering(lambda _: b"") as (_, server):
        url = server.url
    rest = Rest(url, timeout_s=1, window_ms=5000, clock_ms=lambda: 1, chance=random.Random(1))
    async with rest:
        with pytest.raises(RestError, match="ConnectError"):
            await rest.get("/api/v1/depth")


@pytest.mark.parametrize("body", [b"9" * 400, b"[" * 100_000, b"1e999", b"soon", b""])
async def test_clock_ignores_a_reply_without_a_time(body: bytes) -> None:
    async with answering(lambda _: http("200 OK", body)) as (rest, server):
        clock = ExchangeClock(lambda: time.time_ns() // 1000)
        running = asyncio.create_task(clock.run(rest))
        await eventually_async(lambda: server.request_lines, "the time is requested")
        clock.suspect()
        await eventually_async(
            lambda: running.done() or len(server.request_lines) > 1, "the time is requested again"
        )

        assert clock.offset_us is None
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()


async def test_bytes_after_a_compressed_body_are_not_collected() -> None:
    packed = gzip.compress(b"[]")
    # arrives in several reads; zlib would keep the rest of all of them
    endless = packed + b"\0" * 300_000

    async with answering(lambda _: http("200 OK", endless, "Content-Encoding: gzip")) as (rest, _):
        with pytest.raises(RestError, match="more follows the end of what was packed"):
            await rest.get("/api/v1/markets")


async def test_cookies_of_the_exchange_are_not_kept() -> None:
    """Each reply may set new cookies; a client that kept them would send all with each request."""
    async with answering(lambda number: http("200 OK", b"[]", f"Set-Cookie: c{number}=1")) as (
        rest,
        server,
    ):
        for _ in range(2):
            await rest.get("/api/v1/markets")

    assert "cookie" not in server.heads[1].lower()


async def test_http_429_with_an_invalid_wait_is_handled_like_one_without() -> None:
    absurd = "Retry-After: Fri, 31 Dec 99999999999999999999 23:59:59 GMT"

    async with answering(lambda _: http("429 Too Many Requests", b"", absurd)) as (rest, _):
        with pytest.raises(RestError, match="HTTP 429"):
            await rest.get("/api/v1/markets")


async def test_certificates_that_were_replaced_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "next").mkdir()
    first, following = new_certificates(tmp_path), new_certificates(tmp_path / "next")
    monkeypatch.setenv("SSL_CERT_FILE", str(first.authority))
    reply = http("200 OK", b"[]", "Connection: close")
    async with answering(lambda _: reply, tls=first.server) as (rest, _):
        assert await rest.get("/api/v1/markets") == b"[]"
        first.server.load_cert_chain(tmp_path / "next" / "server.pem")
        with pytest.raises(RestError, match="CERTIFICATE_VERIFY_FAILED"):
            await rest.get("/api/v1/markets")
        first.authority.write_bytes(following.authority.read_bytes())
        with pytest.raises(RestError, match="CERTIFICATE_VERIFY_FAILED"):
            await rest.get("/api/v1/markets")

        assert await rest.get("/api/v1/markets") == b"[]"
