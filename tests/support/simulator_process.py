"""Starts the simulator as a process on a free port, and orders its faults.

Uses the command line and the first printed line only, not the protocol. The process is stopped by
its own ID, with SIGTERM first. `sim.stderr()` is its log so far, for the message of a failing test.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import plain_http, warm

ROOT = Path(__file__).resolve().parents[2]
FIRST_LINE = re.compile(r"simulator listening on ws://(\S+)")
START_LIMIT_S = 60.0
STOP_LIMIT_S = 5.0


@dataclass(frozen=True)
class RunningSimulator:
    """A running simulator: its `ws_url`, its `rest_url`, its process, and its ledger's path,
    if it has one.
    """

    ws_url: str
    rest_url: str
    process: subprocess.Popen[str]
    ledger: Path | None
    log_path: Path
    holder: socket.socket = field(default_factory=socket.socket, repr=False)

    def stderr(self) -> str:
        return self.log_path.read_text()

    def fault(self, fault: str, **settings: object) -> int:
        """Start a fault; its number. `docs/simulator.md` lists the faults."""
        body = self._ask("POST", "/simulator/faults", {"fault": fault, **settings})
        return int(body["number"])

    def play_faults(self, script: str) -> None:
        """Play a script of faults; its times count from now."""
        url = f"{self.rest_url}/simulator/faults/script"
        reply = plain_http.post(url, content=script)
        assert reply.status_code == 200, reply.text

    def end_fault(self, number: int) -> dict[str, Any]:
        """End a fault; its data: affected frames, and times."""
        ended: dict[str, Any] = self._ask("DELETE", f"/simulator/faults/{number}")
        return ended

    def fault_state(self, number: int) -> dict[str, Any]:
        """The data of a fault: affected frames, and times."""
        known: dict[str, Any] = self._ask("GET", f"/simulator/faults/{number}")
        return known

    def connections(self) -> list[dict[str, Any]]:
        """The open connections, oldest first: number, streams, frames sent and waiting."""
        found: list[dict[str, Any]] = self._ask("GET", "/simulator/connections")
        return found

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        reply = plain_http.request(method, self.rest_url + path, json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def stop(self) -> int:
        """Send SIGTERM and wait for the end; the exit code.

        The port stays occupied until the block ends: a bridge that keeps connecting must not reach
        the simulator of another test.
        """
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        host, port = self.ws_url.removeprefix("ws://").split(":")
        with contextlib.suppress(OSError):
            self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.holder.bind((host, int(port)))
        return code


@contextlib.contextmanager
def running_simulator_sync(
    *args: str, ledger: Path | None = None, start_limit_s: float = START_LIMIT_S
) -> Iterator[RunningSimulator]:
    """Run `python -m simulator --port 0 ARGS` until the block ends."""
    arguments = [*args, *(["--ledger", str(ledger)] if ledger else [])]
    if "--port" not in arguments:
        arguments += ["--port", "0"]
    if ledger is None and "--ledger" in arguments:
        ledger = Path(arguments[arguments.index("--ledger") + 1])
    with tempfile.TemporaryDirectory(prefix="simulator-") as folder:
        log_path = Path(folder) / "stderr.log"
        with log_path.open("w") as log:
            process = warm.Process(
                [sys.executable, "-m", "simulator", *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        sim: RunningSimulator | None = None
        try:
            address = _address(process, start_limit_s, log_path)
            sim = RunningSimulator(
                f"ws://{address}", f"http://{address}", process, ledger, log_path
            )
            yield sim
        finally:
            if sim is not None:
                sim.stop()
                sim.holder.close()
            elif process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextlib.asynccontextmanager
async def running_simulator(
    *args: str, ledger: Path | None = None, start_limit_s: float = START_LIMIT_S
) -> AsyncIterator[RunningSimulator]:
    """The same for asynchronous tests; waits outside the event loop."""
    manager = running_simulator_sync(*args, ledger=ledger, start_limit_s=start_limit_s)
    sim = await asyncio.to_thread(manager.__enter__)
    try:
        yield sim
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


def _address(process: subprocess.Popen[str], limit_s: float, log_path: Path) -> str:
    """Wait for the first line; fail with the log if the process ends or prints nothing in time."""
    assert process.stdout is not None
    alarm = threading.Timer(limit_s, process.kill)
    alarm.start()
    try:
        line = process.stdout.readline()
    finally:
        alarm.cancel()
    found = FIRST_LINE.match(line)
    if found is None:
        process.kill()
        process.wait()
        raise RuntimeError(f"the simulator did not start: {line!r} {log_path.read_text()}")
    return found.group(1)
