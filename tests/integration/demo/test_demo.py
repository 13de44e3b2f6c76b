"""The demo as a real process: it ends well, says what failed, and never leaves an orphan.

The pids it prints are process groups of its parts; a part is gone when its group is.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.runtime.embedded import find_embedded
from tests.support.command import ROOT
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(150)

START_S = 60.0
STOP_S = 40.0
PARTS = ("redis", "simulator", "bridge", "candles", "book", "orders", "tail")
SECRET = "4odxgSUxFrC/zsKWZF4OQwYAgnNu9hnWH3NxWfLAPz4="
OF_A_REAL_BRIDGE = {  # none of it may reach the demo
    "BRIDGE_REDIS__URL": "redis://127.0.0.1:1/0",
    "BRIDGE_REDIS__KEY_PREFIX": "real:",
    "PUBLIC_KEY": "mine",
    "SECRET_KEY": "mine too",
}
_PID = re.compile(r"^  (\w+) .*\(process (\d+)\)$", re.MULTILINE)


class Demo:
    """One demo: its process, what it said, and the process groups it told of."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self._said = folder.parent / "said.txt"

    def said(self) -> str:
        return self._said.read_text()

    def pids(self) -> dict[str, int]:
        return {name: int(pid) for name, pid in _PID.findall(self.said())}

    def until_up(self) -> dict[str, int]:
        """Wait until every part is up and the view begins."""
        eventually(
            lambda: self.process.poll() is not None or " streams, " in self.said(),
            "the demo runs",
            START_S,
        )
        assert self.process.poll() is None, self.said()
        return self.pids()

    def until_ended(self) -> int:
        return self.process.wait(STOP_S)

    def nothing_left(self, pids: dict[str, int]) -> None:
        eventually(lambda: not any(map(is_alive, pids.values())), f"all of {pids} are gone", STOP_S)


def is_alive(pid: int) -> bool:
    """Is there such a process (redis), or anyone in such a process group (the other parts)?"""
    for ask in (os.kill, os.killpg):
        try:
            ask(pid, 0)
        except ProcessLookupError:
            continue
        return True
    return False


@contextmanager
def running_demo(tmp_path: Path, *arguments: str, **more: str) -> Iterator[Demo]:
    folder = tmp_path / "demo"
    kept = {name: value for name, value in os.environ.items() if name not in ("FOR", "RATE")}
    with (tmp_path / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo", "--folder", str(folder), *arguments],
            cwd=ROOT,
            env=kept | more,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    demo = Demo(process, folder)
    try:
        yield demo
    finally:
        process.kill()  # its parts follow by their guards, which is a test of its own
        process.wait()
        for pid in demo.pids().values():  # one that a test froze, too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGCONT)


def takes(holder: socket.socket, port: int) -> bool:
    try:
        holder.bind(("127.0.0.1", port))
        holder.listen()
    except OSError:
        return False
    return True


def test_it_shows_everything_and_ends_by_itself(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(AssertionError):  # somebody has it for good, which is as good
            eventually(lambda: takes(holder, 6379), "another demo leaves the port", limit_s=40)
        with running_demo(tmp_path, FOR="8", RATE="150", **OF_A_REAL_BRIDGE) as demo:
            assert demo.until_ended() == 0, demo.said()
            said, pids = demo.said(), demo.pids()
            assert set(pids) == set(PARTS)
            demo.nothing_left(pids)
    assert "(port 6379 is taken)" in said
    assert re.search(r"^  BRIDGE_REDIS__URL=redis\S+ \S+ -m bridge tap 'trade\.\*'$", said, re.M)
    assert re.search(r"^In [89] s: [\d,]+ entries", said, re.MULTILINE)
    for kind in ("trade", "depth.200ms", "kline.1s", "account.orderUpdate", "stockPrice"):
        assert re.search(rf"^  {re.escape(kind)} +\d+ +[\d,]+ ", said, re.MULTILINE), kind
    assert "  quarantined: 0" in said
    for name in ("candles", "book", "orders", "tail"):
        assert re.search(rf"^  {name}/demo: [\d,]+ handled", said, re.MULTILINE), name
    assert "FAILED" not in said
    assert "Traceback" not in said


def test_a_secret_key_is_nowhere(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        demo.process.send_signal(signal.SIGTERM)
        assert demo.until_ended() == 0, demo.said()
        demo.nothing_left(pids)
        logs = "".join(path.read_text() for path in demo.folder.glob("*.*"))
        assert "bridge_starting" in logs
        assert SECRET not in demo.said() + logs


def test_ctrl_c_stops_all_in_order_within_seconds(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        demo.process.send_signal(signal.SIGINT)
        assert demo.until_ended() == 130, demo.said()
        assert not any(map(is_alive, pids.values())), "parts outlived the demo"
        assert "Stopping: consumers, bridge, simulator, Redis" in demo.said()
        assert "did not stop well" not in demo.said()
        # In order: the bridge lost neither Redis nor the exchange, and no consumer lost Redis.
        bridge_log = (demo.folder / "bridge.log").read_text()
        assert '"bridge_stopped"' in bridge_log
        logs = bridge_log + "".join((demo.folder / f"{n}.log").read_text() for n in PARTS[3:6])
        assert not re.search(r'"(feed|redis|connection)_(lost|away|down)"', logs), logs


def test_a_second_ctrl_c_leaves_at_once_without_orphans(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        os.killpg(pids["tail"], signal.SIGSTOP)  # a part that would not stop by itself
        demo.process.send_signal(signal.SIGINT)
        eventually(lambda: "Stopping: " in demo.said(), "it stops")
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(3) == 130
        demo.nothing_left(pids)
        assert "Traceback" not in demo.said()


def test_ctrl_c_while_starting_leaves_nothing(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        eventually(lambda: "simulator" in demo.pids(), "the simulator is up", START_S)
        demo.process.send_signal(signal.SIGINT)
        assert demo.until_ended() == 130, demo.said()
        demo.nothing_left(demo.pids())
        assert "Traceback" not in demo.said()


def test_a_killed_demo_leaves_no_orphan(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        assert set(pids) == set(PARTS)
        demo.process.kill()
        demo.process.wait()
        demo.nothing_left(pids)
        # Told to stop, not just ended by force: the bridge wrote its last words.
        assert '"bridge_stopped"' in (demo.folder / "bridge.log").read_text()


@pytest.mark.parametrize("part", ["redis", "bridge", "book"])
def test_a_part_that_dies_ends_the_demo_and_is_named_with_its_log(
    tmp_path: Path, part: str
) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        if part == "redis":
            assert find_embedded(demo.folder / "redis")
            os.kill(pids[part], signal.SIGKILL)
        else:
            os.killpg(pids[part], signal.SIGKILL)
        assert demo.until_ended() == 1, demo.said()
        demo.nothing_left(pids)
        name = "Redis" if part == "redis" else part
        assert re.search(rf"^FAILED: {name} ended by itself .*\(log: \S+\)$", demo.said(), re.M)
        assert f"Data and logs are kept in {demo.folder}" in demo.said()
        assert "Traceback" not in demo.said()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file, where a folder is wanted")
    with running_demo(tmp_path) as demo:
        assert demo.until_ended() == 2
        assert re.fullmatch(
            r"error: \S+/demo cannot be written \(File exists\): give another with --folder, or "
            r"set TMPDIR\n",
            demo.said(),
        )
