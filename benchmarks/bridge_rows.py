"""Our bridge end to end: load generator → bridge process → acknowledged by Redis."""

import time
from typing import Any, cast

import yaml
from redis import ResponseError

from benchmarks.ground import Broken, Ground, redis_server
from benchmarks.measure import Sample, Skipped
from benchmarks.rows import row

LINK_S = 20.0  # for a replica to connect


@row("saturated", "bridge, journal on (fsync: interval)")
@row("paced", "bridge, journal on (fsync: interval)")
def as_shipped(ground: Ground) -> Sample:
    return _bridge(ground)


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


@row("saturated", "bridge, compression on")
def with_compression(ground: Ground) -> Sample:
    return _bridge(ground, "--deflate", exchange={"compression": True})


def _bridge(ground: Ground, *options: str, **sections: dict[str, Any]) -> Sample:
    """One run; `sections` over the shipped configuration, `options` to the load generator."""
    with ground.exchange(*options) as exchange, ground.redis() as client:
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
            return ground.measured(
                process,
                lambda: exchange.go(ground.rate),
                ground.all_published(client),
                len(ground.workload.frames),
            )
