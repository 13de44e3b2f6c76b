"""Faults of sets of servers: primaries that are killed, frozen and return, and slots that move.

A bridge, consumers of both modes and dead letters run meanwhile; the verdict is from the exchange's
ledger.
"""

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import exceptions

from bridge.redis.connection import ConnectionLost, Target
from bridge.redis.connection import connect as connect_wire
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect, connect_blocking
from bridge.runtime.redis_url import with_tag
from consumers import read
from consumers.kit.redis.keys import Keys
from tests.support import warm
from tests.support.certificates import new_certificates
from tests.support.command import ROOT, environment, run_bridge
from tests.support.consumer_entries import START_US, entry_id, trade
from tests.support.consumer_worker import Worker
from tests.support.eventually import eventually, eventually_async
from tests.support.proxy import running_proxy
from tests.support.publisher_rig import Rig, all_trades, running, trade_ids
from tests.support.redis_server import running_redis
from tests.support.redis_sets import (
    SERVICE,
    Cluster,
    Watched,
    lose_what_comes,
    running_cluster,
    running_watched,
)
from tests.support.set_run import MARKETS, SetRun, running_on

LIMIT_S = 400
RATE = 500
QUICK = 2000  # messages a second, while a slot moves
KEYS_AT_ONCE = 2


async def _crash_with_loss(run: SetRun) -> None:
    """The primary acknowledges entries that no replica gets, and is killed; it restarts empty."""
    owner, replicas = run.servers.owner(), run.servers.replicas()
    await asyncio.to_thread(lose_what_comes, owner, replicas)
    await run.grows(200)
    owner.kill()
    for replica in replicas:
        replica.resume()
    await asyncio.to_thread(run.servers.await_other_than, owner)
    await run.grows()
    owner.start()
    await asyncio.to_thread(_await_replicas, run.servers)
    await run.grows()


async def _freeze(run: SetRun) -> None:
    """The primary hangs until there is another one, and then reports for a moment that it is
    the primary.
    """
    owner = run.servers.owner()
    owner.pause()
    await eventually_async(
        lambda: asyncio.to_thread(lambda: run.servers.owner() is not owner),
        "another server is the primary",
    )
    await run.grows()
    owner.resume()
    await asyncio.to_thread(run.servers.await_other_than, owner)
    await asyncio.to_thread(_await_replicas, run.servers)
    await run.grows()


def _await_replicas(servers: Watched | Cluster) -> None:
    eventually(lambda: bool(servers.replicas()) and servers.follows(), "replicas follow again")


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize(("kind", "bridges"), [("sentinels", 1), ("cluster", 1), ("cluster", 2)])
async def test_fault_of_the_primary_loses_and_duplicates_nothing(
    kind: str, bridges: int, tmp_path: Path
) -> None:
    opened = running_watched() if kind == "sentinels" else running_cluster()
    with opened as servers:
        async with running_on(servers, tmp_path, RATE, bridges) as run:
            await asyncio.to_thread(servers.fail_over)
            await run.grows()
            await _crash_with_loss(run)
            await _freeze(run)
            assert any("redis_lost_entries" in bridge.log() for bridge in run.bridges)
            assert await run.flaws() == []


@pytest.mark.timeout(LIMIT_S)
async def test_nothing_is_lost_or_duplicated_while_the_slot_moves(tmp_path: Path) -> None:
    with running_cluster() as cluster:
        async with running_on(cluster, tmp_path, QUICK) as run:
            for _ in range(2):
                source, target = await asyncio.to_thread(cluster.begin_move)
                while await asyncio.to_thread(cluster.move_keys, source, target, KEYS_AT_ONCE):
                    await asyncio.sleep(0.05)  # takes as long as a move of large streams
                await asyncio.to_thread(cluster.end_move, source, target)
                await run.grows(2000)
            await asyncio.to_thread(_inspect, run, tmp_path)
            assert await run.flaws() == []


NOTING = """
from consumers import Consumer

class Shared(Consumer):
    name = "shared"
    streams = ("trade.*",)
    attempts = 1

    def on_event(self, delivery, results):
        with open("handled.txt", "a") as file:
            file.write(delivery.entry_id + "\\n")
        results.hincrby("", "count", 1)

class Ordered(Consumer):
    name = "ordered"
    mode = "ordered"
    streams = ("trade.*",)
    attempts = 1

    def on_event(self, delivery):
        with open("handled.txt", "a") as file:
            file.write(delivery.entry_id + "\\n")
        self.state["count"] = self.state.get("count", 0) + 1

    def write(self, results):
        results.hset("", {"count": self.state.get("count", 0)})
"""


@pytest.mark.parametrize("mode", ["shared", "ordered"])
def test_an_entry_that_cannot_be_settled_while_a_slot_moves_is_no_dead_letter(
    mode: str, cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "noting.py").write_text(NOTING)
    keys, handled = Keys(KeySpace(cluster.prefix)), tmp_path / "handled.txt"
    name = f"trade.{mode.upper()}_USDC"
    first, second = (entry_id(START_US + n * 1000, n) for n in (1, 2))
    owner = cluster.owner()
    with owner.client() as client:
        client.hset(keys.registry, name, "{}")
        client.xadd(keys.stream(name), trade(1, START_US, "1", "1"), id=first)  # type: ignore[arg-type]
        worker = Worker(
            tmp_path, cluster.url, f"noting:{mode.title()}", "--lease", "2", "--streams", name,
            "--from", "beginning",
        )  # fmt: skip
        try:
            made = keys.beside(name, mode)
            eventually(lambda: client.hget(made, "count") == "1", "the first entry is counted")
            source, target = cluster.begin_move()
            client.xadd(keys.stream(name), trade(2, START_US, "1", "1"), id=second)  # type: ignore[arg-type]
            # In ordered mode the entry is handled once, and its commit is retried.
            often = 5 if mode == "shared" else 1
            eventually(
                lambda: handled.read_text().count(second) >= often, "the second entry was handled"
            )
            eventually(
                lambda: "redis_unavailable" in worker.err,
                "the worker reports that Redis is unavailable",
            )
            cluster.call_off(source, target)
            eventually(
                lambda: client.hget(made, "count") == "2", "the second entry is counted once"
            )
            assert not client.exists(keys.dead(name, mode))
            assert "handler_failed" not in worker.err
            assert worker.stop() == 0
        finally:
            if worker.process.poll() is None:
                worker.kill()


def _consumers(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run(
        [sys.executable, "-m", "consumers", *arguments],
        cwd=folder,
        env=environment(url, PYTHONPATH=f"{ROOT}{os.pathsep}{folder}", COLUMNS="200"),
        text=True,
        timeout=60,
    )


def _inspect(run: SetRun, folder: Path) -> None:
    """Every read-only command shows the stored data."""
    url = run.servers.url
    status = run_bridge(folder, url, "status", "--json")
    assert len(json.loads(status.stdout)["streams"]) == len(run.streams), status.stderr
    tapped = run_bridge(folder, url, "tap", "trade.*", "--from", "beginning", "--count", "3")
    assert (tapped.returncode, len(tapped.stdout.splitlines())) == (0, 3), tapped.stderr
    key = run_bridge(folder, url, "key", run.streams[0])
    assert key.stdout == f"{run.servers.prefix}{run.streams[0]}\n"
    groups = _consumers(folder, url, "status")
    assert all(name in groups.stdout for name in ("shared", "ordered", "failing")), groups.stderr
    letters = _consumers(folder, url, "deadletters", "list", "--group", "failing")
    assert "a bad one" in letters.stdout, letters.stderr
    replayed = _consumers(
        folder, url, "replay", "effects:Shared", "--streams", run.streams[0], "--from", "1m"
    )
    assert replayed.returncode == 0, replayed.stderr
    assert next(iter(read(run.streams[0], url=url))).event.symbol == MARKETS[0]


async def test_publisher_follows_an_address_that_leads_to_another_server() -> None:
    with running_redis() as first, running_redis() as second:
        async with (
            running_proxy("127.0.0.1", first.port) as proxy,
            running(Rig(f"redis://127.0.0.1:{proxy.port}/0")) as rig,
        ):
            rig.trades(100)
            await rig.settled()
            with first.client() as old, second.client() as new:
                new.replicaof("127.0.0.1", first.port)
                await eventually_async(
                    lambda: new.info("replication")["master_link_status"] == "up",
                    "the new server follows",
                )
                new.replicaof("NO", "ONE")
                old.replicaof("127.0.0.1", second.port)
            rig.trades(100)
            await eventually_async(lambda: "replica" in rig.trouble, "the replica refuses writes")
            proxy.lead_to(second.port)
            await rig.settled()
        assert trade_ids(second) == all_trades(200)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with running_watched(replicas=1, sentinels=1) as servers:
        yield servers


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(primaries=2, replicas=1) as nodes:
        yield nodes


async def test_clients_follow_with_and_without_a_loop(watched: Watched, cluster: Cluster) -> None:
    for servers in (watched, cluster):
        url = with_tag(servers.url, servers.prefix)
        key = f"{servers.prefix}key"
        async with connect(url, name="x", decode_responses=True) as client:
            await client.set(key, "here")
            await asyncio.to_thread(servers.fail_over)
            while not await _is_written(client, key):
                await asyncio.sleep(0.02)
        with connect_blocking(url, name="x") as blocking:
            assert blocking.get(key) == "there"


async def _is_written(client: object, key: str) -> bool:
    with contextlib.suppress(exceptions.ConnectionError):
        await client.set(key, "there")  # type: ignore[attr-defined]
        return True
    return False


async def test_sentinels_have_a_login_and_tls_of_their_own(tmp_path: Path) -> None:
    certificates = new_certificates(tmp_path)
    with running_watched(replicas=0, sentinels=1) as watched:
        [sentinel] = watched.sentinels
        with watched.servers[0].client() as client, sentinel.client() as watcher:
            client.config_set("requirepass", "data")
            for option, value in (("auth-pass", "data"),):
                watcher.execute_command("SENTINEL", "SET", SERVICE, option, value)
            watcher.execute_command("ACL", "SETUSER", "watcher", "on", ">eyes", "+@all")
            watcher.execute_command("ACL", "SETUSER", "default", "off")
        async with _over_tls(sentinel.port, certificates.server) as port:
            url = (
                f"redis+sentinel://:data@127.0.0.1:{port}/{SERVICE}/0?sentinel_username=watcher"
                f"&sentinel_password=eyes&sentinel_tls=true&ssl_ca_certs={certificates.authority}"
            )
            connection = await connect_wire(Target.from_url(url), 3)
            connection.close()
            async with connect(url, name="x") as client:
                assert await client.ping()
            with pytest.raises(ConnectionLost, match="no primary of sentinel mymaster/0 is known"):
                await connect_wire(Target.from_url(url.replace("eyes", "ears")), 3)


async def test_client_certificate_is_sent(tmp_path: Path) -> None:
    certificates = new_certificates(tmp_path)
    context = certificates.server
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.authority)
    with running_redis() as server:
        async with _over_tls(server.port, context) as port:
            plain = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificates.authority}"
            own = f"&ssl_certfile={tmp_path / 'server.pem'}&ssl_keyfile={tmp_path / 'server.pem'}"
            async with connect(plain + own, name="x") as client:
                assert await client.ping()
            (await connect_wire(Target.from_url(plain + own), 3)).close()
            with pytest.raises(ConnectionLost):
                await connect_wire(Target.from_url(plain), 3)


async def test_certificates_are_read_again_at_each_connect(tmp_path: Path) -> None:
    for name in ("right", "wrong"):
        (tmp_path / name).mkdir()
    right, wrong = (new_certificates(tmp_path / name) for name in ("right", "wrong"))
    file = tmp_path / "ca.pem"
    file.write_bytes(wrong.authority.read_bytes())
    with running_redis() as server:
        async with _over_tls(server.port, right.server) as port:
            url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={file}"
            target = Target.from_url(url)
            async with connect(url, name="x") as client:
                with pytest.raises(exceptions.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                    await client.ping()
                with pytest.raises(ConnectionLost, match="CERTIFICATE_VERIFY_FAILED"):
                    await connect_wire(target, 3)
                file.write_bytes(right.authority.read_bytes())
                assert await client.ping()
                (await connect_wire(target, 3)).close()


@contextlib.asynccontextmanager
async def _over_tls(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while some := await reader.read(65_536):
                writer.write(some)
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, out = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):
            await asyncio.gather(pass_on(reader, out), pass_on(inside, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
