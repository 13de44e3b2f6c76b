"""Starts `python -m MODULE` without its imports, which take most of a start's time.

A server process of the tests imports everything and forks. The new process is a child of the test
process, and equals a normal one in all that tests check. `TESTS_START=cold` starts each process
without a fork, as in tests/chaos. Processes that cannot be forked start in the same way: on systems
other than Linux, with files to pass on, or with another encoding.
"""

import atexit
import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
PR_SET_CHILD_SUBREAPER = 36
# Python's own variables that a forked process can still apply.
TAKEN_ON = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}

_lock = threading.Lock()


class Process(subprocess.Popen[Any]):
    """`subprocess.Popen` for commands that begin with this Python, `-m` and a module."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self._folder = options.get("cwd")
        self._environment = options.get("env")
        self._session = options.get("start_new_session", False)
        self._group = options.get("process_group", -1)
        self._is_odd = bool(options.keys() & {"preexec_fn", "pass_fds", "executable", "shell"})
        super().__init__(command, **options)

    # Popen calls this once its pipes are made; the same in Python 3.11 to 3.13.
    def _execute_child(self, command: list[str], *others: Any) -> None:
        server = None if self._is_odd or not self._can_be_forked(command) else _server()
        if server is None:
            super()._execute_child(command, *others)  # type: ignore[misc]
            return
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = others[9:15]
        request = {
            "module": command[2],
            "arguments": [str(each) for each in command[3:]],
            "folder": str(self._folder or Path.cwd()),
            "environment": dict(self._variables()),
            "session": self._session,
            "group": self._group,
        }
        inherited = enumerate((p2cread, c2pwrite, errwrite))
        self.pid = server.fork(
            request, [given if given >= 0 else ours for ours, given in inherited]
        )
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _can_be_forked(self, command: list[str]) -> bool:
        settings = {name for name in self._variables() if name.startswith("PYTHON")}
        return (
            os.environ.get("TESTS_START") != "cold"
            and command[:2] == [sys.executable, "-m"]
            and settings <= TAKEN_ON
            and Path(self._folder or ".").is_dir()  # Popen itself reports the error
        )

    def _variables(self) -> Mapping[str, str]:
        return os.environ if self._environment is None else self._environment


def run(command: list[str], *, timeout: float, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Like `subprocess.run` with `capture_output=True`."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    with Process(command, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


class Server:
    """The forking process."""

    def __init__(self) -> None:
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asked.settimeout(START_S)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        program = Path(__file__).with_name("warm_server.py")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(program), str(theirs.fileno())],
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self._end)
        if self._asked.recv(32) != b"ready":
            raise RuntimeError("tests/support/warm_server.py did not start")

    def fork(self, request: dict[str, Any], files: list[int]) -> int:
        """Fork a process; its process ID, as a child of this process."""
        with _lock:
            _adopt_orphans(True)  # the process between it and this one ends at once
            try:
                socket.send_fds(self._asked, [json.dumps(request).encode()], files)
                return int(self._asked.recv(32))
            finally:
                _adopt_orphans(False)

    def _end(self) -> None:
        self._asked.close()  # the server ends at the end of its input
        self._process.wait(START_S)


@functools.cache
def _server() -> Server | None:
    return Server() if sys.platform == "linux" else None


def _adopt_orphans(wanted: bool) -> None:
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
