"""Connections to Redis: no silent retries, bounded waits, and a client name."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from redis import exceptions

from bridge.errors import ConfigError
from bridge.redis.connection import Target
from bridge.redis.connection import connect as connect_wire
from bridge.runtime.config import Config
from bridge.runtime.embedded import running_server
from bridge.runtime.redis_client import connect, connect_blocking, resolve_url
from tests.support.certificates import new_certificates
from tests.support.redis_server import RedisServer, free_port, running_redis


async def test_client_has_its_name_and_returns_bytes_or_text(redis_url: str) -> None:
    async with connect(redis_url, name="bridge:test") as raw:
        await raw.set("key", "value")
        assert await raw.get("key") == b"value"
    async with connect(redis_url, name="bridge:test", decode_responses=True) as text:
        assert await text.get("key") == "value"
        assert await text.client_getname() == "bridge:test"


@pytest.mark.parametrize("rule", ["-client", "-client|setname", "+@all"])
async def test_user_without_the_right_to_set_a_name_connects_without_one(
    redis_url: str, rule: str
) -> None:
    url = redis_url.replace("redis://", "redis://nameless:pw@")
    with connect_blocking(redis_url, name="admin") as admin:
        admin.acl_setuser("nameless", reset=True)
        admin.execute_command("ACL SETUSER nameless on >pw ~* +@all", *rule.split())
        async with connect(url, name="bridge:test") as client:
            assert await client.set("key", "value")
        with connect_blocking(url, name="bridge:test") as client:
            assert client.get("key") == "value"
            named = [each["name"] for each in admin.client_list() if each["user"] == "nameless"]
    assert named == ["bridge:test" if rule == "+@all" else ""]


async def test_an_unavailable_server_is_reported_at_once_not_after_retries() -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}/0", name="x") as client:
        async with asyncio.timeout(20):  # ten retries by the client would take longer
            with pytest.raises(exceptions.ConnectionError):
                await client.ping()


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("scheme", ["rediss://h/0", "rediss+sentinel://h/main"])
def test_missing_file_of_certificates_is_reported_in_one_sentence(
    option: str, scheme: str, tmp_path: Path
) -> None:
    url = f"{scheme}?{option}={tmp_path}/none.pem"
    for make in (Target.from_url, partial(connect, name="x"), partial(connect_blocking, name="x")):
        with pytest.raises(ConfigError) as caught:
            make(url)
        assert str(caught.value) == (
            f"redis.url: {option} {tmp_path}/none.pem cannot be read: No such file or directory"
        )


def test_cluster_without_slots_is_refused() -> None:
    for make in (Target.from_url, partial(connect, name="x"), partial(connect_blocking, name="x")):
        with pytest.raises(ConfigError, match="key_prefix must select one of its nodes"):
            make("redis+cluster://n1:7000,n2/0")


@contextlib.asynccontextmanager
async def replies_to_xadd_are_lost(port: int) -> AsyncIterator[str]:
    """A proxy that closes the connection when Redis has replied to an XADD; the URL."""

    async def carry(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        replies, server = await asyncio.open_connection("127.0.0.1", port)
        while sent := await client.read(65_536):
            server.write(sent)
            reply = await replies.read(65_536)
            if b"XADD" in sent:
                break
            back.write(reply)
        for end in (server, back):
            end.close()
            with contextlib.suppress(ConnectionError):
                await end.wait_closed()

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as wire:
        yield f"redis://127.0.0.1:{wire.sockets[0].getsockname()[1]}/0"


async def test_a_lost_reply_is_an_error_and_nothing_is_sent_twice(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with (
        replies_to_xadd_are_lost(redis_server.port) as url,
        connect(url, name="x") as client,
    ):
        pipeline = client.pipeline(transaction=False)
        for _ in range(100):
            pipeline.xadd("stream", {"a": "b"})
        with pytest.raises(exceptions.ConnectionError):
            await pipeline.execute()
    with redis_server.client() as reader:
        assert reader.xlen("stream") == 100


async def test_a_silent_server_is_reported_when_the_time_is_up() -> None:
    with running_redis() as server:
        async with connect(server.url, name="x", command_timeout_s=0.2) as client:
            await client.ping()
            server.pause()
            with pytest.raises(exceptions.TimeoutError):
                await client.ping()
            server.resume()


async def test_a_password_comes_from_the_url() -> None:
    with running_redis(password="let-me-in") as server:
        async with connect(server.url, name="x") as client:
            assert await client.ping()


async def test_unix_socket_works_like_tcp(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with running_redis(options=("--unixsocket", str(path))):
        async with connect(f"unix://{path}?db=0", name="x") as client:
            assert await client.ping()


@pytest.mark.parametrize(
    "option",
    [
        "sokcet_timeout=3", "protocol=3", "decode_responses=yes", "retry=1", "retry_on_error=x",
        "event_dispatcher=x", "credential_provider=x", "encoding=x", "redis_connect_func=x",
        "socket_keepalive_options=x", "retry=", "max_connections=1",
    ],
)  # fmt: skip
def test_invalid_url_option_is_reported_without_the_password(option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(f"redis://u:hunter2@h:1/0?{option}", name="x")
    assert str(caught.value) == (
        f"redis.url redis://u:***@h:1/0?{option} cannot be used: check the options after the ?"
    )


def test_url_is_the_configured_one_or_that_of_the_embedded_server(tmp_path: Path) -> None:
    plain = Config.model_validate({"redis": {"url": "redis://h:1/0"}})
    assert resolve_url(plain) == "redis://h:1/0"
    embedded = Config.model_validate(
        {"redis": {"url": "embedded"}, "embedded": {"data_dir": tmp_path, "port": 0}}
    )
    with pytest.raises(ConfigError, match="no embedded Redis runs"):
        resolve_url(embedded)
    with running_server(embedded.embedded) as server:
        assert resolve_url(embedded) == server.url


async def test_a_task_that_is_cancelled_while_it_sends_ends(redis_url: str) -> None:
    chance = random.Random(7)
    async with connect(redis_url, name="x") as client:

        async def beat() -> None:
            while True:
                pipeline = client.pipeline(transaction=False)
                pipeline.time()
                pipeline.hgetall("a")
                with contextlib.suppress(exceptions.RedisError):
                    await pipeline.execute(raise_on_error=False)
                # cancelled here only where the code above swallowed the cancellation
                assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]
                await asyncio.sleep(0)

        for _ in range(300):
            task = asyncio.create_task(beat())
            await asyncio.sleep(chance.uniform(0, 0.004))
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()


@contextlib.asynccontextmanager
async def server_over_tls(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server over TLS that replies OK to each command; the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readline():
                for _ in range(2 * int(head[1:])):
                    await reader.readline()
                writer.write(b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_certificates_that_were_replaced_are_read_at_each_connect(tmp_path: Path) -> None:
    (tmp_path / "next").mkdir()
    first, following = new_certificates(tmp_path), new_certificates(tmp_path / "next")
    async with server_over_tls(first.server) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={first.authority}"
        plain = connect_blocking(url, name="x")
        target = Target.from_url(url)
        async with connect(url, name="x") as client:
            for certificates in (first, following):
                first.server.load_cert_chain(certificates.authority.with_name("server.pem"))
                first.authority.write_bytes(certificates.authority.read_bytes())

                assert await client.execute_command("ECHO", "x") == b"OK"
                assert await asyncio.to_thread(plain.execute_command, "ECHO", "x") == "OK"
                (await connect_wire(target, 3)).close()
                await client.connection_pool.disconnect()
                plain.connection_pool.disconnect()
        plain.close()
