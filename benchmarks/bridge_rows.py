"""The bridge end to end: load generator → bridge process → acknowledged by Redis."""

import contextlib
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import yaml
from redis import Redis, ResponseError

from benchmarks.ground import Broken, Ground, free_port, redis_cluster, redis_server
from benchmarks.measure import Sample, Skipped
from benchmarks.rows import row
from bridge.runtime.keyspace import PLAIN, KeySpace
from bridge.runtime.redis_client import connect_blocking
from bridge.runtime.redis_url import with_tag

LINK_S = 20.0  # for a replica to connect
SCRAPE_EVERY_S = 1.0


@row("saturated", "bridge, journal on (fsync: interval)")
@row("paced", "bridge, journal on (fsync: interval)")
@row("latency", "bridge, journal on (fsync: interval)")
def as_shipped(ground: Ground) -> Sample:
    return _bridge(ground)


@row("paced", "bridge, linger_ms: 1")
@row("latency", "bridge, linger_ms: 1")
def lingering(ground: Ground) -> Sample:
    return _bridge(ground, publish={"linger_ms": 1})


@row("latency", "bridge, linger_ms: 5")
def lingering_longer(ground: Ground) -> Sample:
    return _bridge(ground, publish={"linger_ms": 5})


@row("saturated", "bridge, fsync: off")
def without_syncing(ground: Ground) -> Sample:
    return _bridge(ground, journal={"fsync": "off"})


@row("saturated", "bridge, fsync: batch")
@row("paced", "bridge, fsync: batch")
def syncing_each_batch(ground: Ground) -> Sample:
    return _bridge(ground, journal={"fsync": "batch"})


@row("saturated", "bridge, journal off")
@row("paced", "bridge, journal off")
def without_journal(ground: Ground) -> Sample:
    return _bridge(ground, journal={"enabled": False})


@row("saturated", "bridge, metrics on, scraped each second")
@row("paced", "bridge, metrics on, scraped each second")
def with_metrics(ground: Ground) -> Sample:
    port = free_port()
    with _scraped_each_second(f"http://127.0.0.1:{port}/metrics") as was_scraped:
        # The first page loads the library, once in the bridge's life: before the clock starts.
        return _bridge(
            ground, ready=lambda: was_scraped.wait(LINK_S), metrics={"listen": f"127.0.0.1:{port}"}
        )


@contextlib.contextmanager
def _scraped_each_second(url: str) -> Iterator[threading.Event]:
    """Scrape like a Prometheus, only more often; the event is set after the first page."""
    stop, was_scraped = threading.Event(), threading.Event()

    def scrape() -> None:
        while not stop.wait(SCRAPE_EVERY_S):
            with contextlib.suppress(OSError):  # the bridge is not up yet, or has ended
                urllib.request.urlopen(url, timeout=5).read()
                was_scraped.set()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield was_scraped
    finally:
        stop.set()
        thread.join()


@row("saturated", "bridge, published is: on a replica (WAIT)")
def on_a_replica(ground: Ground) -> Sample:
    ground.folder.mkdir(parents=True, exist_ok=True)
    follow = ("--replicaof", "127.0.0.1", str(ground.redis_port), "--repl-diskless-sync-delay", "0")
    with ground.redis() as client, redis_server(ground.folder, *follow):
        ends_s = time.monotonic() + LINK_S
        while not cast("dict[str, Any]", client.info("replication"))["connected_slaves"]:
            if time.monotonic() > ends_s:
                raise Broken("the replica did not connect")
            time.sleep(0.05)
        return _bridge(ground, publish={"durability": {"level": "replica"}})


@row("saturated", "bridge, published is: on the disk of Redis (WAITAOF)")
def on_the_disk(ground: Ground) -> Sample:
    with ground.redis() as client:
        try:
            client.execute_command("WAITAOF", 0, 0, 1)
        except ResponseError:
            raise Skipped("this server has no WAITAOF (Redis 7.2 has, and Valkey)") from None
        client.config_set("appendonly", "yes")
        try:
            return _bridge(ground, publish={"durability": {"level": "fsynced"}})
        finally:
            client.config_set("appendonly", "no")


@row("saturated", "bridge, a Cluster of one node, one shard")
def on_one_shard(ground: Ground) -> Sample:
    return _on_cluster(ground, 1, 1)


@row("saturated", "bridge, a Cluster of 4 nodes, 4 shards")
def on_four_shards(ground: Ground) -> Sample:
    return _on_cluster(ground, 4, 4)


@row("saturated", "bridge, compression on")
def with_compression(ground: Ground) -> Sample:
    return _bridge(ground, "--deflate", exchange={"compression": True})


def _on_cluster(ground: Ground, nodes: int, shards: int) -> Sample:
    space = KeySpace("{bridge}:", shards)
    with redis_cluster(ground.folder, nodes) as (url, pids):
        client = connect_blocking(with_tag(url, space.prefix, shards), name="benchmark")
        redis = {"url": url, "shards": shards}
        return _bridge(replace(ground, redis_pids=pids), client=client, space=space, redis=redis)


def _bridge(
    ground: Ground,
    *options: str,
    client: Redis | None = None,
    space: KeySpace = PLAIN,
    ready: Callable[[], object] = lambda: None,
    **sections: dict[str, Any],
) -> Sample:
    """One run; `sections` overrides the shipped configuration, `options` are for the load
    generator. `client` and `space`: where the streams are, if not in the ground's Redis. `ready`
    returns when the measurement may begin.
    """
    with ground.exchange(*options) as exchange, client or ground.redis() as client_in_use:
        config: dict[str, dict[str, Any] | list[str]] = {
            "exchange": {"ws_url": exchange.ws_url, "rest_url": exchange.rest_url},
            "redis": {"url": ground.redis_url},
            "streams": ground.workload.streams,
        }
        for name, values in sections.items():
            config[name] = {**config.get(name, {}), **values}  # type: ignore[dict-item]
        ground.folder.mkdir(parents=True, exist_ok=True)
        (ground.folder / "config.yaml").write_text(yaml.safe_dump(config))
        with ground.program("-m", "bridge", "run") as process:
            exchange.wait_until_subscribed()
            ready()
            return ground.published(process, exchange, client_in_use, space)
