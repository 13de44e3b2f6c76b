"""A process forked by `tests.support.warm` behaves like one started by `python -m`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.bridge_process import environment

FACTS = (
    "import os, sys, signal\n"
    "print(sys.argv, os.getcwd(), sys.path[0], sorted(os.environ.items()))\n"
    "print(__name__, os.getppid(), os.getpgrp() == os.getpid(), sys.stdin.read(), flush=True)\n"
    "print(sys.stdout.encoding, sys.stdout.errors, sys.stderr.errors, sys.stdin.errors)\n"
    "print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))\n"
    "print('to the other', file=sys.stderr)\n"
    "sys.exit(3)\n"
)

ENDS = (
    "import atexit, sys, threading\n"
    "atexit.register(print, 'at exit')\n"
    "threading.Timer(0.05, print, ['the thread']).start()\n"
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")


@pytest.fixture(params=["cold", "warm"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    if request.param == "cold":
        return subprocess.Popen
    monkeypatch.delenv("TESTS_START", raising=False)
    return warm.Process


def facts(folder: Path, process: type, **options: object) -> tuple[int, str, str, int]:
    """The exit code of a process, its output and errors, and its process ID."""
    variables = environment(SOME="thing")
    (folder / "facts.py").write_text(FACTS)
    with process(
        [sys.executable, "-m", "facts", "one", "--two"],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as started:
        out, err = started.communicate(timeout=60)
    return started.returncode, out, err, started.pid


@pytest.mark.parametrize("options", [{}, {"process_group": 0}, {"start_new_session": True}])
def test_forked_process_equals_a_started_one(options: dict[str, object], tmp_path: Path) -> None:
    *cold, _ = facts(tmp_path, subprocess.Popen, **options)
    *forked, _ = facts(tmp_path, warm.Process, **options)

    assert forked == cold
    assert f"__main__ {os.getpid()} {bool(options)}" in cold[1]
    assert cold[0] == 3


def test_traceback_of_a_module_that_fails_is_reported(kind: type, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("raise ValueError('it fails')\n")
    with kind(
        [sys.executable, "-m", "fails"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
    ) as started:
        _, err = started.communicate(timeout=60)

    assert started.returncode == 1
    assert err.endswith(b"ValueError: it fails\n")


@pytest.mark.parametrize(
    ("given", "code", "expected"), [("", 0, ""), ("3", 3, ""), ("'a sentence'", 1, "a sentence\n")]
)
def test_forked_process_runs_threads_and_exit_functions_to_the_end(
    given: str, code: int, expected: str, kind: type, tmp_path: Path
) -> None:
    (tmp_path / "ends.py").write_text(ENDS + f"sys.exit({given})\n")
    with kind(
        [sys.executable, "-m", "ends"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        out, err = started.communicate(timeout=60)

    assert (started.returncode, err) == (code, expected)
    assert out == "the thread\nat exit\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_at_the_end_is_reported(kind: type, tmp_path: Path) -> None:
    (tmp_path / "prints.py").write_text("print('something')\n")
    buffered = {name: each for name, each in environment().items() if name != "PYTHONUNBUFFERED"}
    with (
        open("/dev/full", "w") as full,
        kind(
            [sys.executable, "-m", "prints"],
            cwd=tmp_path,
            env=buffered,
            stdout=full,
            stderr=subprocess.PIPE,
        ) as started,
    ):
        _, err = started.communicate(timeout=60)

    assert started.returncode == 120  # Python's exit code for this
    assert b"No space left on device" in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_ends_a_forked_process_like_any_other(
    how: signal.Signals, kind: type, tmp_path: Path
) -> None:
    (tmp_path / "waits.py").write_text("print('begun', flush=True)\nimport time\ntime.sleep(60)\n")
    with kind(
        [sys.executable, "-m", "waits"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as started:
        assert started.stdout.readline() == b"begun\n"
        started.send_signal(how)

    assert started.returncode == -how


def test_run_has_a_limit_in_time(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([sys.executable, "-m", "waits"], cwd=tmp_path, env=environment(), timeout=0.1)
