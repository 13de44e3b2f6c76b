"""The demo as a process, for tests that read its output, stop it and kill it.

The printed process IDs are those of its parts' process groups; a part has ended when its group has.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.support.command import ROOT
from tests.support.eventually import eventually

START_S = 60.0
STOP_S = 40.0
WHOLE_S = START_S + STOP_S  # for a demo that ends by itself or cannot start
PARTS = ("redis", "simulator", "bridge", "candles", "book", "orders", "tail")
SECRET = "4odxgSUxFrC/zsKWZF4OQwYAgnNu9hnWH3NxWfLAPz4="
OF_A_REAL_BRIDGE = {  # the demo must not use these
    "BRIDGE_REDIS__URL": "redis://127.0.0.1:1/0",
    "BRIDGE_REDIS__KEY_PREFIX": "real:",
    "PUBLIC_KEY": "mine",
    "SECRET_KEY": "mine too",
}
_PID = re.compile(r"^  (\w+) .*\(process (\d+)\)$", re.MULTILINE)


class Demo:
    """A demo: its process, its output, and the process groups that it prints."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self._output = folder.parent / "output.txt"

    def output(self) -> str:
        return self._output.read_text()

    def pids(self) -> dict[str, int]:
        return {name: int(pid) for name, pid in _PID.findall(self.output())}

    def until_up(self) -> dict[str, int]:
        """Wait until every part runs and the view begins; the parts' process IDs."""
        eventually(
            lambda: self.process.poll() is not None or " streams, " in self.output(),
            "the demo's view begins",
            START_S,
        )
        assert self.process.poll() is None, self.output()
        return self.pids()

    def until_ended(self) -> int:
        """Wait for the demo's end; the exit code. After WHOLE_S it fails with the demo's output."""
        try:
            return self.process.wait(WHOLE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {WHOLE_S:g} s:\n{self.output()}") from None

    def nothing_left(self, pids: dict[str, int]) -> None:
        eventually(
            lambda: not any(map(is_alive, pids.values())), f"all of {pids} have ended", STOP_S
        )

    def ends_because_of(self, part: str, pids: dict[str, int]) -> None:
        """Assert that the demo ends after `part` was killed, names it, and leaves no process."""
        assert self.until_ended() == 1, self.output()
        self.nothing_left(pids)
        named = rf"^FAILED: {part} ended by itself .*\(log: \S+\)$"
        assert re.search(named, self.output(), re.MULTILINE)
        assert f"Data and logs are kept in {self.folder}" in self.output()
        assert "Traceback" not in self.output()


def is_alive(pid: int) -> bool:
    """Whether the process (of Redis) or a process of the group (of other parts) exists."""
    for send_signal in (os.kill, os.killpg):
        try:
            send_signal(pid, 0)
        except ProcessLookupError:
            continue
        return True
    return False


@contextmanager
def running_demo(tmp_path: Path, *arguments: str, **more: str) -> Iterator[Demo]:
    folder = tmp_path / "demo"
    kept = {name: value for name, value in os.environ.items() if name not in ("FOR", "RATE")}
    with (tmp_path / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo", "--folder", str(folder), *arguments],
            cwd=ROOT,
            env=kept | more,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    demo = Demo(process, folder)
    try:
        yield demo
    finally:
        process.kill()  # the guards end its parts, which another test checks
        process.wait()
        for pid in demo.pids().values():  # a part that the test froze must continue to end
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGCONT)


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Keep the port occupied, by this test as soon as no other program has it."""
    is_over = threading.Event()
    with socket.socket() as holder, ThreadPoolExecutor(1) as pool:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def take() -> None:
            while not is_over.wait(0.005):
                with contextlib.suppress(OSError):
                    holder.bind(("127.0.0.1", port))
                    holder.listen()
                    return

        pool.submit(take)
        try:
            yield
        finally:
            is_over.set()
