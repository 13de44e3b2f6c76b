"""A bridge, an exporter and, if installed, a Prometheus with the shipped rules; their reports
of faults.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.integration.view.test_console import Site, running_console
from tests.support import plain_http, warm
from tests.support.bridge_process import environment, run_bridge
from tests.support.bridge_run import BridgeRun, running_bridge
from tests.support.eventually import eventually_async
from tests.support.process_pages import ProcessPages, serves
from tests.support.redis_server import RedisServer, free_port, running_redis
from tests.support.simulator_process import RunningSimulator, running_simulator

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 90.0  # many processes on a machine that may be busy
STREAMS: Sequence[object] = (
    {"types": ["trade", "depth", "bookTicker", "ticker"], "markets": ["SOL_USDC"]},
)
QUICK = {
    "reconnect_initial_s": 0.05,
    "reconnect_max_s": 0.5,
    "ping_interval_s": 1,
    "ping_timeout_s": 4,
    "handshakes_per_s": 20,
    "silence_s": 3,
}
# The shipped rules, with waiting times shortened from minutes to seconds.
SHORTER = ((r"for: \w+", "for: 1s"), (r"> (30|60)$", "> 5"))


class Monitor:
    """A Prometheus; if it is not installed, alerts are not checked."""

    def __init__(self, url: str = "") -> None:
        self._url = url

    @property
    def is_here(self) -> bool:
        return bool(self._url)

    def is_up(self) -> bool:
        try:
            return plain_http.get(f"{self._url}/-/ready").status_code == 200
        except httpx2.HTTPError:
            return False  # Prometheus is still starting

    def firing(self) -> set[str]:
        reply = plain_http.get(f"{self._url}/api/v1/alerts").json()
        alerts: list[dict[str, Any]] = reply["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def values(self, expression: str) -> list[Any]:
        """The current result of a query expression."""
        reply = plain_http.get(f"{self._url}/api/v1/query", params={"query": expression})
        assert reply.status_code == 200, reply.text
        result: list[Any] = reply.json()["data"]["result"]
        return result


@dataclass
class Drill:
    """All processes, running and healthy. `bridge_pages`, `exporter_pages`: HTTP pages of the
    two.
    """

    folder: Path
    server: RedisServer
    exchange: RunningSimulator
    bridge: BridgeRun
    bridge_pages: ProcessPages
    exporter_pages: ProcessPages
    monitor: Monitor
    console: Site

    def status(self, *arguments: str) -> str:
        """The output of `python -m bridge status`."""
        return self._said(run_bridge(self.folder, "status", *arguments, **self.variables()))

    def consumers(self, *arguments: str) -> str:
        """The output of `python -m consumers …`."""
        command = [sys.executable, "-m", "consumers", *arguments]
        variables = environment(**self.variables())
        return self._said(warm.run(command, cwd=self.folder, env=variables, text=True, timeout=60))

    def variables(self) -> dict[str, str]:
        return {"BRIDGE_REDIS__URL": self.server.url, "COLUMNS": "200"}

    async def shows(self, pages: ProcessPages, series: str, is_so: Callable[[float], bool]) -> None:
        """Wait until a series of a page has a value for which `is_so` is true."""

        def is_shown() -> bool:
            found = pages.series()
            return series in found and is_so(found[series])

        await eventually_async(is_shown, f"{series} has the expected value", LIMIT_S)

    async def fires(self, alert: str) -> None:
        if self.monitor.is_here:
            await eventually_async(
                lambda: alert in self.monitor.firing(), f"{alert} fires", LIMIT_S
            )

    async def is_quiet(self, alert: str) -> None:
        if self.monitor.is_here:
            await eventually_async(
                lambda: alert not in self.monitor.firing(), f"{alert} no longer fires", LIMIT_S
            )

    async def is_well(self) -> None:
        """Wait until the bridge is ready; `/metrics` and `status` must agree."""
        await eventually_async(self.bridge_pages.is_ready, "the bridge is ready", LIMIT_S)
        unhealthy = {
            name: value
            for name, value in self.bridge_pages.series().items()
            if name.startswith("backpack_unhealthy") and value
        }
        assert unhealthy == {}
        await eventually_async(
            lambda: '"healthy": true' in self.status("--json"),
            "status reports a healthy bridge",
            60,
        )

    async def names(self, reason: str, words: str) -> None:
        """Wait until `/readyz` and `backpack_unhealthy` name the reason; the bridge stays
        alive meanwhile.
        """
        await eventually_async(
            lambda: reason in self.bridge_pages.reasons(), f"/readyz names {reason}", LIMIT_S
        )
        # The first text may be another reason, such as the end of the old connection.
        await eventually_async(
            lambda: re.search(words, self.bridge_pages.reason_texts()),
            f"/readyz shows {words}",
            LIMIT_S,
        )
        assert self.bridge_pages.is_alive()
        series = self.bridge_pages.series()
        assert series[f'backpack_unhealthy{{reason="{reason}"}}'] == 1

    def top(self) -> str:
        """The output of `python -m bridge top --once`."""
        return self._said(run_bridge(self.folder, "top", "--once", **self.variables()))

    def seen_in_console(self) -> str:
        """The head line of the console's pages, and the reasons on its first page."""
        head, whole = self.console.beginning(page="now")
        verdict = whole["verdict"] if whole else {"reasons": []}
        return "\n".join([head["text"], *verdict["reasons"]])

    async def viewers_say(self, words: str, *arguments: str) -> None:
        """Wait until `status`, `top` and the console show a text that matches."""
        for who, says in (
            ("status", lambda: self.status(*arguments)),
            ("top", self.top),
            ("the console", self.seen_in_console),
        ):
            await eventually_async(
                lambda says=says: re.search(words, says()), f"{who} shows {words}", LIMIT_S
            )

    @staticmethod
    def _said(done: "subprocess.CompletedProcess[str]") -> str:
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@asynccontextmanager
async def drill(folder: Path, *, clock_off_ms: int = 0) -> AsyncIterator[Drill]:
    """Start all processes but workers. Healthy, unless the clock is wrong by `clock_off_ms`."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running_redis(appendonly=True))
        exchange = await stack.enter_async_context(
            running_simulator("--rate", "60", "--market", "SOL_USDC")
        )
        if clock_off_ms:
            exchange.fault("clock_skew", ms=clock_off_ms)
        bridge = await stack.enter_async_context(a_bridge(folder, exchange, server, "a"))
        log = folder / "exporter.log"
        stack.callback(_end, start_exporter(folder, server, log))
        await eventually_async(lambda: serves(log.read_text()), "the exporter serves", LIMIT_S)
        await eventually_async(lambda: serves(bridge.log()), "the bridge serves", LIMIT_S)
        pages = ProcessPages(bridge.log()), ProcessPages(log.read_text())
        console = stack.enter_context(running_console(folder, server.url))
        monitor = await _monitor(folder, stack, *(each.address for each in pages))
        one = Drill(folder, server, exchange, bridge, *pages, monitor, console)
        if not clock_off_ms:
            await one.is_well()
        yield one


@asynccontextmanager
async def a_bridge(
    folder: Path, exchange: RunningSimulator, server: RedisServer, name: str
) -> AsyncIterator[BridgeRun]:
    async with running_bridge(
        folder / name,
        exchange.ws_url,
        server.url,
        STREAMS,
        instance=name,
        exchange={"ws_url": exchange.ws_url, "rest_url": exchange.rest_url, **QUICK},
        redis={"url": server.url, "command_timeout_s": 1},
        metrics={"listen": "127.0.0.1:0"},
    ) as bridge:
        yield bridge


def start_exporter(folder: Path, server: RedisServer, log: Path) -> "subprocess.Popen[Any]":
    command = ["-m", "consumers", "exporter", "--listen", "127.0.0.1:0"]
    variables = {"BRIDGE_REDIS__URL": server.url, "BRIDGE_REDIS__COMMAND_TIMEOUT_S": "1"}
    with log.open("wb") as output:
        return warm.Process(
            [sys.executable, *command],
            cwd=folder,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


async def _monitor(folder: Path, stack: AsyncExitStack, bridge: str, exporter: str) -> Monitor:
    """Start a Prometheus that scrapes both each second, with the shipped rules and shorter
    times.
    """
    binary = shutil.which("prometheus")
    if binary is None:
        return Monitor()
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text("utf-8")
    for pattern, replacement in SHORTER:
        rules = re.sub(pattern, replacement, rules, flags=re.MULTILINE)
    (folder / "rules.yml").write_text(rules)
    config: Mapping[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [target]}]}
            for job, target in (("backpack-bridge", bridge), ("backpack-exporter", exporter))
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                "--config.file=prometheus.yml",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    stack.callback(_end, process)
    monitor = Monitor(f"http://127.0.0.1:{port}")
    await eventually_async(monitor.is_up, "Prometheus is ready", LIMIT_S)
    return monitor


def _end(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    process.wait(60)
