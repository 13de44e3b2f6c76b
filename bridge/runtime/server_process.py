"""One Redis server process with a guard, on a data folder: launch it, wait for it, end it.

Between starter and server runs the guard, a few lines of shell that wait on a pipe from the
starter. When the starter ends in any way, kill -9 included, the pipe closes and the guard
terminates the server: no orphan, and data on disk. A pipe works on Linux and macOS alike, where
PR_SET_PDEATHSIG is Linux only and tied to the thread that forked. Guard and server have a session
of their own, so Ctrl-C on the terminal does not reach them before the bridge has flushed.

The server loses at most the last second in a crash (appendfsync everysec) and evicts nothing. It
requires a password, kept in the folder for its owner alone: any user of this machine can connect to
the loopback. `embedded` decides which process starts the server and which joins it.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge.errors import Fatal
from bridge.runtime.server_binary import find_server_binary

START_S = 60.0  # loading a large append-only file is slow
STOP_S = 30.0
POLL_S = 0.02
LOG = "server.log"
PASSWORD = "password"
_SETTINGS = "embedded.conf"  # a command line could be read by every user

# Redis and Valkey log this before they exit.
_NO_PORT = "Failed listening on port"

Guard = subprocess.Popen[bytes]
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


class PortTaken(Fatal):
    """Another program listens on the port that the server was given."""


def launch(folder: Path, port: int, maxmemory_mb: int | None, password: str, lock: int) -> Guard:
    """Start the server under its guard; it inherits the locked descriptor `lock`."""
    settings = folder / _SETTINGS
    write_private(settings, f"requirepass {password}\n")
    command = [str(find_server_binary()), str(settings), *_arguments(folder, port, maxmemory_mb)]
    with (folder / LOG).open("wb") as log, _clear_of_the_shells(lock) as inherited:
        try:
            return subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "embedded-redis-guard", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,  # the files may hold the account's streams
                pass_fds=(inherited,),
            )
        except OSError as error:
            raise Fatal(f"the Redis server could not be started: {error.strerror}") from error


def password_of(folder: Path) -> str:
    """The password of the folder's server, created at its first start. One that others could read
    or change is replaced.
    """
    file = folder / PASSWORD
    with contextlib.suppress(OSError):
        rights = file.stat()
        if rights.st_uid == os.geteuid() and not stat.S_IMODE(rights.st_mode) & 0o077:
            known = file.read_text("ascii", errors="replace").strip()
            if known.isalnum():
                return known
    made = secrets.token_hex(24)
    write_private(file, made + "\n")
    return made


def write_private(file: Path, text: str) -> None:
    """Replace the file by one that only its owner can read."""
    beside = file.with_name(file.name + ".new")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        new.write(text)
    beside.replace(file)


@contextlib.contextmanager
def _clear_of_the_shells(descriptor: int) -> Iterator[int]:
    """A duplicate of the descriptor, with a number that the guard's shell does not use itself."""
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


def pid_when_ready(guard: Guard, url: str, folder: Path) -> int:
    """The server's process id, once it has loaded its data and answers.

    Raises PortTaken, and Fatal where it does not start for another reason.
    """
    deadline = time.monotonic() + START_S
    while guard.poll() is None and time.monotonic() < deadline:
        pid = pid_serving(url, folder)
        if pid is not None:
            return pid
        time.sleep(POLL_S)
    reason = _log_tail(folder)
    kind = PortTaken if _NO_PORT in reason else Fatal
    raise kind(f"the embedded Redis did not start: {reason} (see {folder / LOG})")


def end_guard(guard: Guard) -> None:
    """Close the pipe and wait: the guard terminates the server, which saves its data and exits."""
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(STOP_S)
    except subprocess.TimeoutExpired:
        _log.warning("embedded_killed", waited_s=STOP_S)
        os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()


def pid_serving(url: str, folder: Path) -> int | None:
    """The process ID of the server at this URL once it is ready, if its folder is this one."""
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


def is_free(port: int) -> bool:
    """Whether no program listens on this port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback that no program listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _log_tail(folder: Path) -> str:
    lines = (folder / LOG).read_text("utf-8", errors="replace").split("\n")
    nonempty = [line.strip() for line in lines if line.strip()]
    return nonempty[-1] if nonempty else "it logged nothing"
