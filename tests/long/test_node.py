"""The consumer in Node as a user runs it: installed by npm, with a real Redis, and killed."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import ROOT
from tests.support.consumer_entries import START_US, Fields, entry_id, gap, trade
from tests.support.consumer_worker import Bench

TRADES, OTHER = "trade.SOL_USDC", "trade.BTC_USDC"
SOURCE = ROOT / "examples" / "node"
INSTALL_S = 120.0

pytestmark = pytest.mark.timeout(INSTALL_S + 120)  # the first test of a process runs npm


def needs_node() -> None:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed (Debian: apt install nodejs npm)")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.strip("v\n").split(".")[0]) < 20:
        pytest.skip(f"node {version.stdout.strip()} is older than 20")


def install(folder: Path) -> None:
    """Run `npm ci`; skips the test if no registry can be reached."""
    ended = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=30000"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    if ended.returncode:
        if "EUSAGE" in ended.stderr or "EINTEGRITY" in ended.stderr:  # the lock file does not match
            pytest.fail(ended.stderr)
        pytest.skip(f"npm could not install the client: {ended.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The consumer and its packages, installed once for all processes of the test run."""
    needs_node()
    lock = (SOURCE / "package-lock.json").read_bytes()
    folder = tmp_path_factory.getbasetemp().parent / f"node-{hashlib.sha256(lock).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    with (folder / "installing").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        for name in ("package.json", "package-lock.json", "consumer.mjs"):
            shutil.copy(SOURCE / name, folder)
        if not (folder / "installed").exists():
            install(folder)
            (folder / "installed").touch()
    return folder


class NodeWorkers:
    """Processes of the consumer, which end with the test."""

    def __init__(self, folder: Path, bench: Bench) -> None:
        self._folder = folder
        self._bench = bench
        self._processes: list[subprocess.Popen[bytes]] = []
        self.stderr_file = bench.folder / "node.err"

    def start(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        given = {"REDIS_URL": self._bench.url, "NAME": name, "CLAIM_AFTER_MS": "500"}
        with self.stderr_file.open("ab") as output:
            process = subprocess.Popen(
                ["node", "consumer.mjs", "trade.*"],
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], **given, **environment},
                stdin=subprocess.DEVNULL,
                stderr=output,
            )
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def node(folder: Path, bench: Bench) -> Iterator[NodeWorkers]:
    workers = NodeWorkers(folder, bench)
    yield workers
    workers.end()


def entries(first: int, last: int) -> dict[str, Fields]:
    """Trades, of which every hundredth is missing and marked by a gap."""
    found = {}
    for n in range(first, last + 1):
        at_us = START_US + n * 1000
        if n % 100 == 0:
            found[entry_id(at_us, n, 1)] = gap(n, first=n)
        else:
            found[entry_id(at_us, n)] = trade(n, at_us)
    return found


def counts(bench: Bench, stream: str = TRADES, prefix: str = "") -> dict[str, int]:
    found: Any = bench.redis.hgetall(f"{prefix}counts:{{{prefix}{stream}}}")
    return {name: int(found[name]) for name in ("trades", "gaps", "missing") if name in found}


def expected(last: int) -> dict[str, int]:
    return {"trades": last - last // 100, "gaps": last // 100, "missing": last // 100}


def until_counted(bench: Bench, node: NodeWorkers, last: int, stream: str = TRADES) -> None:
    try:
        bench.until(lambda: sum(counts(bench, stream).values()) >= sum(expected(last).values()))
    except AssertionError as error:
        raise AssertionError(
            f"{error} {counts(bench, stream)} {node.stderr_file.read_text()}"
        ) from None
    assert counts(bench, stream) == expected(last)


def test_node_counts_trades_and_gaps_and_stops_cleanly(bench: Bench, node: NodeWorkers) -> None:
    bench.register(TRADES, OTHER, "depth.SOL_USDC")
    bench.add(TRADES, {entry_id(START_US, 0, 1): gap(0)} | entries(1, 1000))
    bench.add("depth.SOL_USDC", {"1-1": trade(1, 1)})
    worker = node.start("one")
    until_counted(bench, node, 1000)
    bench.add(OTHER, entries(1, 200))  # a stream that appears later
    until_counted(bench, node, 200, OTHER)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(60) == 0
    assert bench.group(TRADES, "counts")["pending"] == 0
    assert bench.redis.xinfo_consumers(TRADES, "counts") == []
    assert bench.group("depth.SOL_USDC", "counts") == {}


def test_node_counts_every_entry_once_when_workers_are_killed(
    bench: Bench, node: NodeWorkers
) -> None:
    bench.register(TRADES)
    last = 0
    for name in ("a", "b", "c"):
        worker = node.start(name)
        before = counts(bench).get("trades", 0)
        for _ in range(10):
            bench.add(TRADES, entries(last + 1, last + 500))
            last += 500
        bench.until(lambda before=before: counts(bench).get("trades", 0) > before)
        worker.kill()
    node.start("d")
    until_counted(bench, node, last)


def test_node_worker_suspended_while_its_entries_were_claimed_changes_nothing(
    bench: Bench, node: NodeWorkers
) -> None:
    bench.register(TRADES)
    bench.add(TRADES, entries(1, 100))
    sleeper = node.start("sleeper")
    until_counted(bench, node, 100)
    sleeper.send_signal(signal.SIGSTOP)
    bench.add(TRADES, entries(101, 300))
    # As if the worker had read the entries before the suspension: they are pending under its name.
    bench.redis.xreadgroup("counts", "sleeper", {TRADES: ">"}, count=1000)
    node.start("heir")
    until_counted(bench, node, 300)
    sleeper.send_signal(signal.SIGCONT)
    bench.add(TRADES, entries(301, 400))
    until_counted(bench, node, 400)
    sleeper.send_signal(signal.SIGTERM)
    assert sleeper.wait(60) == 0
    assert counts(bench) == expected(400)


def test_node_reads_its_own_pending_entries_first_and_acknowledges_trimmed_ones(
    bench: Bench, node: NodeWorkers
) -> None:
    bench.register(TRADES)
    bench.add(TRADES, entries(1, 50))
    bench.redis.xgroup_create(TRADES, "counts", "0")
    bench.redis.xreadgroup("counts", "one", {TRADES: ">"}, count=50)
    bench.redis.xtrim(TRADES, maxlen=40, approximate=False)
    node.start("one", CLAIM_AFTER_MS="3600000")
    bench.until(lambda: counts(bench).get("trades") == 40)
    bench.until(lambda: bench.group(TRADES, "counts")["pending"] == 0)


def test_node_counts_a_stream_that_vanished_and_was_filled_again_once(
    bench: Bench, node: NodeWorkers
) -> None:
    bench.register(TRADES)
    bench.add(TRADES, entries(1, 100))
    node.start("one")
    until_counted(bench, node, 100)
    bench.redis.delete(TRADES)
    bench.add(TRADES, entries(1, 200))
    until_counted(bench, node, 200)


def test_node_continues_after_what_was_counted_when_the_group_was_destroyed(
    bench: Bench, node: NodeWorkers
) -> None:
    bench.register(TRADES)
    bench.add(TRADES, entries(1, 200))
    worker = node.start("one")
    until_counted(bench, node, 200)
    worker.kill()
    bench.redis.xgroup_destroy(TRADES, "counts")
    bench.add(TRADES, entries(201, 300))
    node.start("another")
    until_counted(bench, node, 300)


def test_node_counts_entries_in_hand_once_when_the_group_was_destroyed(
    bench: Bench, node: NodeWorkers
) -> None:
    bench.register(TRADES)
    bench.add(TRADES, entries(1, 200))
    bench.redis.xgroup_create(TRADES, "counts", "0")
    bench.redis.xreadgroup("counts", "gone", {TRADES: ">"}, count=100)
    node.start("one", CLAIM_AFTER_MS="3600000")
    # the trades 101 to 200; the others are pending
    bench.until(lambda: counts(bench).get("trades") == 99)
    bench.redis.xgroup_destroy(TRADES, "counts")
    until_counted(bench, node, 200)
    bench.add(TRADES, entries(201, 300))
    until_counted(bench, node, 300)


def test_node_groups_count_each_for_itself(bench: Bench, node: NodeWorkers) -> None:
    bench.register(TRADES)
    bench.add(TRADES, entries(1, 100))
    node.start("one")
    until_counted(bench, node, 100)
    node.start("two", GROUP="others")
    bench.until(lambda: bench.redis.hget(f"others:{{{TRADES}}}", "trades") == "99")
    assert counts(bench) == expected(100)


def test_node_uses_the_bridges_key_prefix(bench: Bench, node: NodeWorkers) -> None:
    bench.redis.hset("replay:bridge:streams", TRADES, "{}")
    bench.add(f"replay:{TRADES}", entries(1, 10))
    node.start("one", KEY_PREFIX="replay:")
    bench.until(lambda: counts(bench, prefix="replay:") == expected(10))
