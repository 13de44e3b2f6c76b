"""The embedded Redis server, for machines that have none: start it, join it, find it.

One server for each data folder. A lock file in the folder is held by the server process itself (it
inherits the locked descriptor), so the lock is free exactly when no server uses the folder, however
the last one ended. The process that gets the lock starts a server and writes `embedded.json`; every
other process joins the running server. Only the starter stops it.

`server_process` launches, configures and guards the process. Knows nothing of streams.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shlex
import stat
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from bridge.contract.json_text import parsed
from bridge.errors import ConfigError, Fatal
from bridge.runtime.config import Embedded
from bridge.runtime.masking import masked_url
from bridge.runtime.server_process import (
    LOG,
    PASSWORD,
    POLL_S,
    START_S,
    Guard,
    PortTaken,
    end_guard,
    free_port,
    is_free,
    launch,
    password_of,
    pid_serving,
    pid_when_ready,
    write_private,
)

PORTS_TRIED = 5
_LOCK, _STATE = "embedded.lock", "embedded.json"
_ANOTHERS = (
    "the embedded Redis on {} belongs to another user of this machine: use a folder of your own "
    "(BRIDGE_EMBEDDED__DATA_DIR), or a Redis that you share (redis.url)"
)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server. `joined`: another process started it and will stop it. `url` contains its
    password.
    """

    url: str
    pid: int
    joined: bool
    data_dir: Path
    moved_from_port: int | None = None

    @property
    def joining(self) -> str:
        """The shell variables before a command of this project that is to use this server."""
        folder = shlex.quote(str(self.data_dir))
        return f"BRIDGE_REDIS__URL=embedded BRIDGE_EMBEDDED__DATA_DIR={folder}"

    @property
    def redis_cli(self) -> str:
        """The shell command for redis-cli on this server, without the password in its arguments."""
        file = shlex.quote(str(self.data_dir / PASSWORD))
        return f"REDISCLI_AUTH=$(cat {file}) redis-cli -p {urlsplit(self.url).port}"


@dataclass(slots=True)
class _Started:
    server: EmbeddedServer
    guard: Guard


def find_embedded(data_dir: Path) -> str:
    """The URL of the server that runs on this folder, with its password. Raises ConfigError where
    none runs, or where it belongs to another user.
    """
    state = _running(data_dir)
    if state is None:
        raise ConfigError(
            f"no embedded Redis runs on {data_dir}: start `python -m bridge redis` or "
            "`python -m bridge run` first, from the same folder, or set redis.url"
        )
    return str(state["url"])


@contextlib.asynccontextmanager
async def embedded_server(settings: Embedded) -> AsyncIterator[EmbeddedServer]:
    """Start or join the server; stop it at the end if it was started here.

    Raises ConfigError for a folder that cannot be used, Fatal where no server can be started.
    """
    with contextlib.ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, running_server(settings))
        try:
            yield server
        finally:
            # A thread cannot be cancelled: the server is stopped even if this wait is cancelled.
            await asyncio.shield(asyncio.to_thread(stack.close))


@contextlib.contextmanager
def running_server(settings: Embedded) -> Iterator[EmbeddedServer]:
    """`embedded_server` without an event loop."""
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
    """Whether the server has ended, by itself or stopped by another process."""
    return not _is_held(server.data_dir)


def _usable_folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_anothers(folder)
        _close_to_others(folder)
        with (folder / _LOCK).open("ab"):
            pass
    except OSError as error:
        raise ConfigError(
            f"embedded.data_dir {folder} cannot be written ({error.strerror}): set "
            "BRIDGE_EMBEDDED__DATA_DIR to a folder of yours"
        ) from error
    return folder.resolve()


def _refuse_anothers(folder: Path) -> None:
    """Raises ConfigError: the owner of the folder could place a link or a server of their own."""
    if folder.stat().st_uid != os.geteuid():
        raise ConfigError(_ANOTHERS.format(folder))


def _close_to_others(folder: Path) -> None:
    """Remove write access of group and others: a writer could replace files as an owner could."""
    rights = stat.S_IMODE(folder.stat().st_mode)
    if rights & 0o022:
        folder.chmod(rights & ~0o022)
        _log.warning("embedded_folder_closed", data_dir=str(folder), others_could="write to it")


def _start_or_join(folder: Path, settings: Embedded) -> _Started | EmbeddedServer:
    """Start the server with the lock; without it wait until the running server answers or ends."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with (folder / _LOCK).open("ab") as lock:
            if _locked(lock.fileno()):
                return _start(folder, settings, lock.fileno())
        state = _read_state(folder)
        if state and _has_starter(state) and pid_serving(state["url"], folder):
            return EmbeddedServer(state["url"], state["pid"], joined=True, data_dir=folder)
        time.sleep(POLL_S)
    raise Fatal(
        f"a server holds {folder} but does not answer: see {folder / LOG}, stop that process "
        "and start again"
    )


def _start(folder: Path, settings: Embedded, lock: int) -> _Started:
    """Start on the configured port, or on a free one where that is taken."""
    (folder / _STATE).unlink(missing_ok=True)
    port = settings.port if settings.port and is_free(settings.port) else free_port()
    for _ in range(PORTS_TRIED - 1):
        try:
            return _start_on(port, folder, settings, lock)
        except PortTaken:  # another program took it between `is_free` and the server's start
            port = free_port()
    return _start_on(port, folder, settings, lock)


def _start_on(port: int, folder: Path, settings: Embedded, lock: int) -> _Started:
    moved_from = settings.port if settings.port not in (0, port) else None
    password = password_of(folder)
    guard = launch(folder, port, settings.maxmemory_mb, password, lock)
    try:
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        pid = pid_when_ready(guard, url, folder)
        server = EmbeddedServer(url, pid, joined=False, data_dir=folder, moved_from_port=moved_from)
        _write_state(folder, server)
    except BaseException:
        end_guard(guard)
        raise
    if moved_from is not None:
        _log.warning("embedded_port_taken", port=moved_from, port_used=port)
    _log.info("embedded_started", url=masked_url(url), pid=pid, data_dir=str(folder))
    return _Started(server, guard)


def _stop(started: _Started) -> None:
    with contextlib.suppress(OSError):
        (started.server.data_dir / _STATE).unlink(missing_ok=True)
    end_guard(started.guard)
    _log.info("embedded_stopped", pid=started.server.pid)


def _running(folder: Path) -> dict[str, Any] | None:
    """The state of the server that holds the lock and answers, or None."""
    if not _is_held(folder):
        return None
    _refuse_anothers(folder)
    state = _read_state(folder)
    return state if state and pid_serving(state["url"], folder) else None


def _is_held(folder: Path) -> bool:
    """Whether a server uses the folder. Takes the lock for a moment; starters retry."""
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
        state = parsed((folder / _STATE).read_text("utf-8"))
    except PermissionError:
        raise ConfigError(_ANOTHERS.format(folder)) from None
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and {"url", "pid", "starter"} <= state.keys() else None


def _has_starter(state: dict[str, Any]) -> bool:
    """Whether the starter is alive; else its guard is about to stop the server: do not join it."""
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
    write_private(folder / _STATE, json.dumps(state) + "\n")
