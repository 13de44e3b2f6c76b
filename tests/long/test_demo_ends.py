"""The demo's output, and its end: it names a failure and leaves no orphan."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support.demo_run import (
    OF_A_REAL_BRIDGE,
    PARTS,
    SECRET,
    is_alive,
    running_demo,
    taken,
)

pytestmark = pytest.mark.timeout(150)


def test_demo_shows_all_but_its_secret_key_and_ends_by_itself(tmp_path: Path) -> None:
    with (
        taken(6379),
        running_demo(tmp_path, FOR="8", RATE="150", **OF_A_REAL_BRIDGE) as demo,
    ):
        assert demo.until_ended() == 0, demo.output()
        output, pids = demo.output(), demo.pids()
        assert set(pids) == set(PARTS)
        demo.nothing_left(pids)
        logs = "".join(path.read_text() for path in demo.folder.glob("*.*"))
    assert "bridge_starting" in logs
    assert SECRET not in output + logs
    assert "(port 6379 is taken)" in output
    assert re.search(r"^  export BRIDGE_REDIS__URL=embedded BRIDGE_EMBEDDED__\S+$", output, re.M)
    assert re.search(r"^  \S+ -m bridge tap 'trade\.\*'$", output, re.M)
    assert re.search(r"^In [89] s: [\d,]+ entries", output, re.MULTILINE)
    for kind in ("trade", "depth.200ms", "kline.1s", "account.orderUpdate", "stockPrice"):
        assert re.search(rf"^  {re.escape(kind)} +\d+ +[\d,]+ ", output, re.MULTILINE), kind
    assert "  quarantined: 0" in output
    for name in ("candles", "book", "orders", "tail"):
        assert re.search(rf"^  {name}/demo: [\d,]+ handled", output, re.MULTILINE), name
    assert "FAILED" not in output
    assert "Traceback" not in output


def test_ctrl_c_stops_all_in_order_within_seconds(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        demo.process.send_signal(signal.SIGINT)
        assert demo.until_ended() == 130, demo.output()
        assert not any(map(is_alive, pids.values())), "parts outlived the demo"
        assert "Stopping: consumers, bridge, simulator, Redis" in demo.output()
        assert "did not stop cleanly" not in demo.output()
        # The order of the stop: the bridge lost neither Redis nor the exchange, no consumer lost
        # Redis.
        bridge_log = (demo.folder / "bridge.log").read_text()
        assert '"bridge_stopped"' in bridge_log
        logs = bridge_log + "".join((demo.folder / f"{n}.log").read_text() for n in PARTS[3:6])
        assert not re.search(r'"(feed|redis|connection)_(lost|away|down)"', logs), logs


def test_demo_killed_leaves_no_orphan(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        assert set(pids) == set(PARTS)
        demo.process.kill()
        demo.process.wait()
        demo.nothing_left(pids)
        # The bridge was stopped, not killed: it wrote its last log line.
        assert '"bridge_stopped"' in (demo.folder / "bridge.log").read_text()


def test_demo_killed_part_ends_it_and_is_named_with_its_log(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        os.killpg(pids["book"], signal.SIGKILL)
        demo.ends_because_of("book", pids)
