"""Generates the Grafana dashboard from the table below: one row for each question.

    python -m deploy.dashboard            write deploy/grafana/backpack.json
    python -m deploy.dashboard --check    write nothing; exit status 1 where it is out of date

A test parses every expression with Prometheus and finds each of its series in real scrapes.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "grafana" / "backpack.json"
WIDTH, HEIGHT = 24, 8  # Grafana's grid
QUANTILES = ("0.5", "0.99")


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `queries`: expression → legend."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    about: str = ""


def _latency(stage: str) -> Mapping[str, str]:
    rate = f'rate(backpack_latency_seconds_bucket{{stage="{stage}"}}[$__rate_interval])'
    return {
        f"histogram_quantile({q}, sum by (le, type) ({rate}))": f"{{{{type}}}} p{float(q) * 100:g}"
        for q in QUANTILES
    }


def _quantiles(histogram: str, by: str = "") -> Mapping[str, str]:
    rate = f"rate({histogram}_bucket[$__rate_interval])"
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return {
        f"histogram_quantile({q}, sum by ({labels}) ({rate}))": f"{legend}p{float(q) * 100:g}"
        for q in QUANTILES
    }


ROWS: Mapping[str, Sequence[Panel]] = {
    "Is it well?": (
        Panel(
            "Why a bridge is not well",
            {"max by (instance, reason) (backpack_unhealthy) > 0": "{{instance}} {{reason}}"},
            kind="stat",
            about="Empty: all is well. docs/metrics.md explains each reason.",
        ),
        Panel(
            "Streams by state",
            {"sum by (state) (backpack_streams)": "{{state}}"},
        ),
        Panel(
            "Shards written",
            {"backpack_redis_shard_up": "{{instance}} shard {{shard}}"},
            about="Empty, unless redis.shards is more than one.",
        ),
        Panel(
            "Connected, publishing, journaling",
            {
                "min by (instance) (backpack_connection_up)": "{{instance}} connected",
                "backpack_redis_up": "{{instance}} publishing",
                "backpack_journal_up": "{{instance}} journaling",
            },
        ),
    ),
    "Does it keep up?": (
        Panel(
            "Entries written",
            {
                'sum by (type) (rate(backpack_entries_total{result="published"}'
                "[$__rate_interval]))": "{{type}}"
            },
            "cps",
        ),
        Panel(
            "Exchange to received",
            _latency("engine_to_received"),
            "s",
            about="Between two machines' clocks.",
        ),
        Panel("Received to in Redis", _latency("received_to_written"), "s"),
        Panel("Redis, request to reply", _quantiles("backpack_redis_round_trip_seconds"), "s"),
    ),
    "Is anything missing?": (
        Panel(
            "Gaps, and those recovered",
            {
                "sum by (type) (increase(backpack_gaps_total[$__rate_interval]))": "{{type}} gaps",
                "sum by (type) (increase(backpack_recovered_total[$__rate_interval]))": (
                    "{{type}} recovered"
                ),
            },
        ),
        Panel(
            "Waiting for Redis",
            {
                "backpack_pending_bytes": "{{instance}} in memory",
                "backpack_journal_behind_bytes": "{{instance}} in the journal",
                "backpack_buffer_bytes": "{{instance}} memory's limit",
            },
            "bytes",
        ),
        Panel(
            "Journal on the disk",
            {
                "backpack_journal_bytes": "{{instance}}",
                "backpack_journal_max_bytes": "{{instance}} limit",
            },
            "bytes",
        ),
    ),
    "What went wrong, and why?": (
        Panel(
            "Why gaps were",
            {
                "sum by (cause) (increase(backpack_gaps_by_cause_total[$__rate_interval]))": (
                    "{{cause}}"
                )
            },
        ),
        Panel(
            "Why connections ended",
            {
                "sum by (cause) (increase(backpack_connections_ended_total[$__rate_interval]))": (
                    "{{cause}}"
                )
            },
        ),
        Panel(
            "Redis errors and timeouts",
            {"sum by (kind) (increase(backpack_redis_errors_total[$__rate_interval]))": "{{kind}}"},
        ),
    ),
    "Do the consumers keep up?": (
        Panel("Behind", {"backpack_group_behind_seconds": "{{group}}"}, "s"),
        Panel(
            "Received by the bridge to handled",
            _quantiles("backpack_group_handled_seconds", "group"),
            "s",
        ),
        Panel("Entries not read", {"backpack_group_lag_entries": "{{group}}"}),
        Panel(
            "Workers, dead letters",
            {
                "backpack_group_workers": "{{group}} workers",
                "backpack_group_dead_letters": "{{group}} dead letters",
            },
        ),
    ),
    "Do the machines keep up?": (
        Panel(
            "Redis' memory",
            {
                "backpack_redis_memory_used_bytes": "used",
                "backpack_redis_memory_max_bytes": "maxmemory",
            },
            "bytes",
        ),
        Panel(
            "Processor",
            {
                'rate(process_cpu_seconds_total{job=~"backpack.*"}[$__rate_interval])': (
                    "{{job}} {{instance}}"
                )
            },
            "percentunit",
        ),
        Panel(
            "Clock, exchange less this machine",
            {"backpack_clock_offset_seconds": "{{instance}}"},
            "s",
        ),
    ),
}


def expressions() -> list[str]:
    """Every query of the dashboard, with a value for Grafana's variable."""
    return [
        query.replace("$__rate_interval", "5m")
        for panels in ROWS.values()
        for panel in panels
        for query in panel.queries
    ]


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's import format."""
    return {
        "title": "backpack-bridge",
        "uid": "backpack-bridge",
        "tags": ["backpack"],
        "timezone": "utc",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                }
            ]
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    top, number = 0, 0
    for title, panels in ROWS.items():
        number += 1
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}
        width = WIDTH // len(panels)
        for column, panel in enumerate(panels):
            number += 1
            place = {"x": column * width, "y": top + 1, "w": width, "h": HEIGHT}
            yield {"id": number, "gridPos": place, **_panel(panel)}
        top += 1 + HEIGHT


def _panel(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": source,
                "expr": query,
                "legendFormat": of,
            }
            for place, (query, of) in enumerate(panel.queries.items())
        ],
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check the file. Returns the exit status."""
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text(), "utf-8")
        return 0
    if FILE.exists() and FILE.read_text("utf-8") == text():
        return 0
    sys.stderr.write(f"{FILE} is out of date: run python -m deploy.dashboard\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
