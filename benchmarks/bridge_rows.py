"""Our bridge end to end: load generator → bridge process → acknowledged by Redis."""

from typing import Any

import yaml

from benchmarks.ground import Ground
from benchmarks.measure import Sample
from benchmarks.rows import row


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
