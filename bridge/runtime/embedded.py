"""A Redis server of our own, for machines that have none: start it, join it, find it.

One server for each data folder. A lock file in the folder is held by the server process itself (it
inherits the locked descriptor), so the lock is free exactly when no server uses the folder, however
the last one ended. Whoever gets the lock starts a server and writes `embedded.json`; everyone else
joins the one that runs. Only the starter stops it.

Between starter and server stands a guard, a few lines of shell that wait on a pipe from the
starter. When the starter ends in any way, kill -9 included, the pipe closes and the guard tells the
server to stop: no orphan, and data on disk. A pipe works on Linux and macOS alike, where
PR_SET_PDEATHSIG is Linux only and tied to the thread that forked. Guard and server live in a
session of their own, so Ctrl-C on the terminal does not reach them before the bridge has flushed.

Knows nothing of streams; keeps everything older than a second through a crash (appendfsync
everysec) and evicts nothing.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge.errors import ConfigError, Fatal
from bridge.runtime.config import Embedded
from bridge.runtime.server_binary import find_server_binary

START_S = 60.0  # loading a large append-only file takes its time
STOP_S = 30.0
_POLL_S = 0.02

_LOCK, _STATE, _LOG = "embedded.lock", "embedded.json", "server.log"
_log = structlog.get_logger()

# $0 is a label, "$@" the server. Descriptor 3 is the pipe: the reader ends when its other end is
# closed. `wait` gives the server's own exit status when it ends by itself.
_GUARD = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ read -r _ <&3; kill -TERM $server; } &
reader=$!
wait $server
code=$?
kill $reader 2>/dev/null
exit $code
"""


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server. `joined` is whether someone else started it (and will stop it)."""

    url: str
    pid: int
    joined: bool
    data_dir: Path
    moved_from_port: int | None = None


@dataclass(slots=True)
class _Started:
    server: EmbeddedServer
    guard: subprocess.Popen[bytes]


def find_embedded(data_dir: Path) -> str:
    """The URL of the server that runs on this folder; ConfigError where none does."""
    state = _running(data_dir)
    if state is None:
        raise ConfigError(
            f"no embedded Redis runs on {data_dir}: start `python -m bridge redis` or "
            "`python -m bridge run` first, from the same folder, or set redis.url"
        )
    return str(state["url"])


@contextlib.asynccontextmanager
async def embedded_server(settings: Embedded) -> AsyncIterator[EmbeddedServer]:
    """Start or join the server; at the end stop it, if it was started here.

    Raises ConfigError for a folder that cannot be used, Fatal where no server can be started.
    """
    with contextlib.ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, running_server(settings))
        try:
            yield server
        finally:
            # a thread cannot be cancelled: the server is stopped even if this wait is
            await asyncio.shield(asyncio.to_thread(stack.close))


@contextlib.contextmanager
def running_server(settings: Embedded) -> Iterator[EmbeddedServer]:
    """The same without a loop."""
    folder = _usable_folder(settings.data_dir)
    started_or_joined = _start_or_join(folder, settings)
    if isinstance(started_or_joined, EmbeddedServer):
        yield started_or_joined
        return
    try:
        yield started_or_joined.server
    finally:
        _stop(started_or_joined)


def has_ended(server: EmbeddedServer) -> bool:
    """Whether the server is gone, by itself or by someone else's hand."""
    return not _is_held(server.data_dir)


def _usable_folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / _LOCK).open("ab"):
            pass
    except OSError as error:
        raise ConfigError(
            f"embedded.data_dir {folder} cannot be written ({error.strerror}): set "
            "BRIDGE_EMBEDDED__DATA_DIR to a folder of yours"
        ) from error
    return folder.resolve()


def _start_or_join(folder: Path, settings: Embedded) -> _Started | EmbeddedServer:
    """Whoever locks starts; the others wait until the starter's server answers, or is gone."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with (folder / _LOCK).open("ab") as lock:
            if _locked(lock.fileno()):
                return _start(folder, settings, lock.fileno())
        state = _read_state(folder)
        if state and _has_starter(state) and _pid_serving(state["url"], folder):
            return EmbeddedServer(state["url"], state["pid"], joined=True, data_dir=folder)
        time.sleep(_POLL_S)
    raise Fatal(
        f"a server holds {folder} but does not answer: look at {folder / _LOG}, stop that process "
        "and start again"
    )


def _start(folder: Path, settings: Embedded, lock: int) -> _Started:
    (folder / _STATE).unlink(missing_ok=True)
    port = settings.port if _is_free(settings.port) else 0
    moved_from = settings.port if settings.port and not port else None
    port = port or _free_port()
    guard = _launch(folder, port, settings.maxmemory_mb, lock)
    try:
        url = f"redis://127.0.0.1:{port}/0"
        pid = _await_server(guard, url, folder)
        server = EmbeddedServer(url, pid, joined=False, data_dir=folder, moved_from_port=moved_from)
        _write_state(folder, server)
    except BaseException:
        _end_guard(guard)
        raise
    if moved_from is not None:
        _log.warning("embedded_port_taken", port=moved_from, port_used=port)
    _log.info("embedded_started", url=url, pid=pid, data_dir=str(folder))
    return _Started(server, guard)


def _launch(
    folder: Path, port: int, maxmemory_mb: int | None, lock: int
) -> subprocess.Popen[bytes]:
    command = [str(find_server_binary()), *_arguments(folder, port, maxmemory_mb)]
    with (folder / _LOG).open("wb") as log, _clear_of_the_shells(lock) as inherited:
        try:
            return subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "embedded-redis-guard", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(inherited,),
            )
        except OSError as error:
            raise Fatal(f"the Redis server could not be started: {error.strerror}") from error


@contextlib.contextmanager
def _clear_of_the_shells(descriptor: int) -> Iterator[int]:
    """The same open file under a number that the guard's shell does not use for itself."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100)
    try:
        yield moved
    finally:
        os.close(moved)


def _arguments(folder: Path, port: int, maxmemory_mb: int | None) -> list[str]:
    settings = {
        "--bind": "127.0.0.1",
        "--port": str(port),
        "--dir": str(folder),
        "--daemonize": "no",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        "--maxmemory": f"{maxmemory_mb or 0}mb",
        "--maxmemory-policy": "noeviction",
        "--stream-node-max-bytes": "8192",  # 8 % less memory than 4096, reads as fast
    }
    return [part for pair in settings.items() for part in pair]


def _await_server(guard: subprocess.Popen[bytes], url: str, folder: Path) -> int:
    """The server's process id, once it has loaded its data and answers."""
    deadline = time.monotonic() + START_S
    while guard.poll() is None and time.monotonic() < deadline:
        pid = _pid_serving(url, folder)
        if pid is not None:
            return pid
        time.sleep(_POLL_S)
    raise Fatal(f"the embedded Redis did not start: {_last_words(folder)} (see {folder / _LOG})")


def _stop(started: _Started) -> None:
    """Close the pipe; the guard tells the server, which writes what it has and ends."""
    with contextlib.suppress(OSError):
        (started.server.data_dir / _STATE).unlink(missing_ok=True)
    _end_guard(started.guard)
    _log.info("embedded_stopped", pid=started.server.pid)


def _end_guard(guard: subprocess.Popen[bytes]) -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(STOP_S)
    except subprocess.TimeoutExpired:
        _log.warning("embedded_killed", waited_s=STOP_S)
        os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()


def _running(folder: Path) -> dict[str, Any] | None:
    """The state of a server that holds the lock and answers."""
    if not _is_held(folder):
        return None
    state = _read_state(folder)
    return state if state and _pid_serving(state["url"], folder) else None


def _is_held(folder: Path) -> bool:
    """Whether a server uses the folder. Takes and gives back the lock; starters try again."""
    try:
        with (folder / _LOCK).open("rb") as lock:
            return not _locked(lock.fileno())
    except OSError:
        return False


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_state(folder: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((folder / _STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and {"url", "pid", "starter"} <= state.keys() else None


def _has_starter(state: dict[str, Any]) -> bool:
    """Whether its starter lives; else the guard is about to stop it, and it is no one to join."""
    try:
        os.kill(int(state["starter"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _write_state(folder: Path, server: EmbeddedServer) -> None:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    state = {"url": server.url, "pid": server.pid, "starter": os.getpid(), "started": started}
    beside = folder / f"{_STATE}.new"
    beside.write_text(json.dumps(state) + "\n", "utf-8")
    beside.replace(folder / _STATE)


def _pid_serving(url: str, folder: Path) -> int | None:
    """The process at this URL, once its data is loaded and if the folder is really this one."""
    client = redis.Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=2,
        socket_connect_timeout=2,
        protocol=2,
        decode_responses=True,
    )
    with client, contextlib.suppress(redis.RedisError):
        client.ping()
        if client.config_get("dir").get("dir") == str(folder.resolve()):
            return int(client.info("server")["process_id"])
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_words(folder: Path) -> str:
    lines = (folder / _LOG).read_text("utf-8", errors="replace").split("\n")
    telling = [line.strip() for line in lines if line.strip()]
    return telling[-1] if telling else "it said nothing"
