"""A private PostgreSQL for tests, if it is installed, with its own data and port."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.redis_server import free_port

START_S = 60.0


def find_programs() -> Path | None:
    """The folder of `initdb` and `postgres`: Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    if found and shutil.which("postgres"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """Start the server; its URL. Skips the test if PostgreSQL is not installed."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    user = _unprivileged()
    if user is not None:
        shutil.chown(folder, user)
    port = free_port()
    try:
        with _server(programs, folder, user, port) as process:
            url = f"postgresql://tester:hidden@127.0.0.1:{port}/postgres"
            _await_answer(url, process, folder)
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _server(
    programs: Path, folder: Path, user: str | None, port: int
) -> Iterator[subprocess.Popen[bytes]]:
    data = folder / "data"
    with (folder / "log").open("wb") as log:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync"],
            cwd=folder,
            user=user,
            stdout=log,
            stderr=log,
            check=True,
        )
        process = subprocess.Popen(
            [
                *(programs / "postgres", "-D", data, "-k", folder, "-h", "127.0.0.1"),
                *("-p", str(port), "-F"),  # without fsync: no test needs it
            ],
            cwd=folder,
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown
        process.wait(START_S)


def _unprivileged() -> str | None:
    """The user to run PostgreSQL as, which refuses to run as root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _await_answer(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(url).close()
            return
        time.sleep(0.05)  # a pause between two attempts
    raise RuntimeError((folder / "log").read_text()[-2000:])
