"""The alert rules for prometheus-redis-exporter alone, with a real exporter."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.drill import ROOT, Monitor
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer, free_port, running_redis

EXPORTER, PROMETHEUS = (shutil.which(name) for name in ("prometheus-redis-exporter", "prometheus"))
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        EXPORTER is None or PROMETHEUS is None,
        reason="prometheus and prometheus-redis-exporter are not installed (Debian has both)",
    ),
]
STREAM = "trade.SOL_USDC"
BEHIND_S, OLD_S = 40, 200


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A stream whose last entry is minutes old, and a group with unread entries."""
    with running_redis() as running, running.client() as client:
        seconds, _ = client.time()  # type: ignore[misc]
        last_ms = (seconds - OLD_S) * 1000
        client.xadd(STREAM, {"type": "trade"}, id=f"{last_ms - BEHIND_S * 1000}-10")
        client.xgroup_create(STREAM, "mine", id="0")
        client.xreadgroup("mine", "w", {STREAM: ">"})
        client.xadd(STREAM, {"type": "trade"}, id=f"{last_ms}-20")
        yield running


def test_age_of_streams_and_lag_of_groups_follow_from_entry_ids(
    server: RedisServer, tmp_path: Path
) -> None:
    at, prometheus_port = free_port(), free_port()
    rules = (ROOT / "deploy/prometheus/without_us.yml").read_text("utf-8")
    (tmp_path / "rules.yml").write_text(rules.replace("for: 2m", "for: 1s").replace("5m", "1s"))
    jobs = [{"job_name": "redis", "static_configs": [{"targets": [f"127.0.0.1:{at}"]}]}]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": jobs,
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    address = f"--redis.addr=redis://127.0.0.1:{server.port}"
    started = [
        subprocess.Popen(
            [str(EXPORTER), address, "--check-streams=trade.*", f"--web.listen-address=:{at}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ),
        subprocess.Popen(
            [
                str(PROMETHEUS),
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=tsdb",
                f"--web.listen-address=127.0.0.1:{prometheus_port}",
            ],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ),
    ]
    monitor = Monitor(f"http://127.0.0.1:{prometheus_port}")
    try:
        eventually(monitor.is_up, "Prometheus is ready")
        eventually(
            lambda: monitor.firing() == {"BackpackStreamStale", "BackpackGroupBehind"},
            "both alerts fire",
        )
        [age] = monitor.values("backpack:stream_age_seconds")
        [behind] = monitor.values("backpack:group_behind_seconds")
    finally:
        for process in started:
            process.terminate()
            process.wait(60)

    assert OLD_S <= float(age["value"][1]) < OLD_S + 170
    assert (behind["metric"]["group"], float(behind["value"][1])) == ("mine", BEHIND_S)
