"""The embedded server: one per folder, shared by later processes, never orphaned, with data on
disk.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge.errors import ConfigError, Fatal
from bridge.runtime.config import Embedded
from bridge.runtime.embedded import (
    EmbeddedServer,
    embedded_server,
    find_embedded,
    has_ended,
    running_server,
)
from bridge.runtime.masking import masked_url
from tests.support.bridge_process import start_bridge
from tests.support.redis_server import free_port


def settings(folder: Path, port: int = 0) -> Embedded:
    return Embedded(data_dir=folder / "data", port=port)


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), protocol=2, decode_responses=True)


def until(fact: Callable[[], bool], what: str, limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not fact():
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the second: the process ended during the read
        pass
    if Path("/proc/self").exists():
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


@contextlib.contextmanager
def foreground(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """`python -m bridge redis` in `folder`: the process, the server's URL and the server's process
    ID.
    """
    with start_bridge(folder, "redis", "--data-dir", "data", *arguments) as process:
        try:
            state = folder / "data" / "embedded.json"
            until(lambda: state.exists() or process.poll() is not None, "the server is announced")
            if not state.exists():
                raise AssertionError(process.communicate())
            announced = json.loads(state.read_text())
            yield process, announced["url"], announced["pid"]
        finally:
            process.kill()


def _asked(*command: str) -> list[int]:
    return [int(word) for word in subprocess.check_output(command, text=True).split()]


@contextlib.contextmanager
def guard_asleep(server: int) -> Iterator[None]:
    """Suspend the guard of this server within the block; the server continues."""
    (shell,) = _asked("ps", "-o", "ppid=", "-p", str(server))
    (reader,) = set(_asked("pgrep", "-P", str(shell))) - {server}
    os.kill(reader, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(reader, signal.SIGCONT)


async def test_embedded_server_starts_with_persistence_and_without_eviction(tmp_path: Path) -> None:
    async with embedded_server(settings(tmp_path)) as server:
        assert not server.joined
        with client(server.url) as reader:
            config = reader.config_get("*")
    expected = {
        "bind": "127.0.0.1",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "stream-node-max-bytes": "8192",
        "dir": str(tmp_path / "data"),
    }
    assert {name: config[name] for name in expected} == expected


async def test_embedded_data_is_kept_until_the_next_start(tmp_path: Path) -> None:
    async with embedded_server(settings(tmp_path)) as server:
        with client(server.url) as writer:
            writer.xadd("trade.SOL_USDC", {"price": "1"}, id="1-1")
    async with embedded_server(settings(tmp_path)) as server:
        with client(server.url) as reader:
            assert reader.xrange("trade.SOL_USDC") == [("1-1", {"price": "1"})]


async def test_server_process_has_ended_after_the_block(tmp_path: Path) -> None:
    async with embedded_server(settings(tmp_path)) as server:
        assert is_running(server.pid)
        assert not has_ended(server)
    assert not is_running(server.pid)
    assert has_ended(server)


def test_embedded_folder_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with running_server(settings(tmp_path)) as server:
        assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700


async def test_another_user_without_the_password_is_refused(
    tmp_path: Path,
) -> None:
    async with embedded_server(settings(tmp_path)) as server:
        at = urlsplit(server.url)
        with client(f"redis://127.0.0.1:{at.port}/0") as stranger:
            for words in (["DBSIZE"], ["CONFIG", "SET", "dir", "/tmp"], ["REPLICAOF", "x", "1"]):
                with pytest.raises(redis.AuthenticationError):
                    stranger.execute_command(*words)
        files = [path for path in server.data_dir.rglob("*") if path.is_file()]
        assert at.password
        assert [path.name for path in files if at.password in path.read_text(errors="replace")]
        readable = [path.name for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]
        assert set(readable) <= {"embedded.lock", "server.log"}
        assert at.password not in (server.data_dir / "server.log").read_text()
        command_line = Path(f"/proc/{server.pid}/cmdline")
        if command_line.exists():
            assert at.password not in command_line.read_text()


def test_embedded_password_is_kept_unless_others_could_read_it(tmp_path: Path) -> None:
    urls = []
    for rights in (None, 0o600, 0o640, None):
        with running_server(settings(tmp_path)) as server:
            urls.append(urlsplit(server.url).password)
        if rights is not None:
            (server.data_dir / "password").chmod(rights)
    assert urls[0] == urls[1] == urls[2] != urls[3]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_the_server_of_another_user_is_reported(tmp_path: Path) -> None:
    with running_server(settings(tmp_path)) as server:
        (server.data_dir / "embedded.json").chmod(0)
        with pytest.raises(ConfigError, match="belongs to another user"):
            find_embedded(server.data_dir)


def test_a_folder_of_another_user_is_refused_before_anything_in_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links in the folder could redirect writes to a file of ours."""
    victim, folder = tmp_path / "victim", tmp_path / "data"
    victim.write_text("mine")
    folder.mkdir()
    (folder / "server.log").symlink_to(victim)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with (
        pytest.raises(ConfigError, match="belongs to another user"),
        running_server(settings(tmp_path)),
    ):
        pass
    assert victim.read_text() == "mine"


def test_folder_of_another_user_is_not_used_to_find_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server(settings(tmp_path)) as server:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with pytest.raises(ConfigError, match="belongs to another user"):
            find_embedded(server.data_dir)


def test_folder_writable_by_others_loses_that_right(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    with running_server(settings(tmp_path)) as server:
        assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o755


async def test_files_of_redis_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    async with embedded_server(settings(tmp_path)) as server:
        with client(server.url) as redis_client:
            redis_client.set("account.orderUpdate", "x")
            redis_client.save()
    data = [*tmp_path.glob("data/*.rdb"), *tmp_path.glob("data/append*")]
    assert data
    assert [path.name for path in data if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_memory_limit_is_passed_to_the_server(tmp_path: Path) -> None:
    limited = Embedded(data_dir=tmp_path, port=0, maxmemory_mb=64)
    with running_server(limited) as server, client(server.url) as reader:
        assert reader.config_get("maxmemory") == {"maxmemory": str(64 << 20)}


def test_second_process_joins_the_server_and_does_not_stop_it(tmp_path: Path) -> None:
    with running_server(settings(tmp_path)) as first:
        with running_server(settings(tmp_path)) as second:
            assert second == EmbeddedServer(
                first.url, first.pid, joined=True, data_dir=first.data_dir
            )
        assert is_running(first.pid)
        assert find_embedded(tmp_path / "data") == first.url


async def test_concurrent_starts_share_one_server(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as tasks:
            starting = [
                tasks.create_task(stack.enter_async_context(embedded_server(settings(tmp_path))))
                for _ in range(4)
            ]
        servers = [task.result() for task in starting]
        assert {server.pid for server in servers} == {servers[0].pid}
        assert [server.joined for server in servers].count(False) == 1


@pytest.mark.parametrize("made", [False, True])
def test_finder_without_a_running_server_states_how_to_start_one(
    tmp_path: Path, made: bool
) -> None:
    if made:
        with running_server(settings(tmp_path)):
            pass
    with pytest.raises(ConfigError, match="start `python -m bridge redis` or"):
        find_embedded(tmp_path / "data")


def test_stale_state_file_is_not_trusted(tmp_path: Path) -> None:
    with running_server(settings(tmp_path)) as server:
        state = (tmp_path / "data" / "embedded.json").read_text()
    (tmp_path / "data" / "embedded.json").write_text(state)
    with pytest.raises(ConfigError, match="no embedded Redis runs"):
        find_embedded(tmp_path / "data")
    with running_server(settings(tmp_path)) as again:
        assert not again.joined
        assert again.pid != server.pid


def test_occupied_port_is_left_to_its_owner_and_a_free_one_used(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        with running_server(settings(tmp_path, taken)) as server:
            assert server.moved_from_port == taken
            with client(server.url) as reader:
                assert reader.ping()


def test_port_occupied_after_the_check_is_left_to_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.runtime.embedded.is_free", lambda port: True)
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        with running_server(settings(tmp_path, taken)) as server:
            assert server.moved_from_port == taken
            with client(server.url) as reader:
                assert reader.ping()


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with (
        pytest.raises(ConfigError, match=r"data cannot be written \(File exists\): set BRIDGE_EMB"),
        running_server(settings(tmp_path)),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="Permission denied"), running_server(settings(tmp_path)):
        pass


def test_data_that_cannot_be_read_is_reported_with_the_servers_own_text(tmp_path: Path) -> None:
    with running_server(settings(tmp_path)):
        pass
    for manifest in (tmp_path / "data" / "appendonlydir").glob("*.manifest"):
        manifest.write_text("rubbish\n")
    refused = pytest.raises(Fatal, match=r"did not start: .+ \(see .*server\.log")
    with refused, running_server(settings(tmp_path)):
        pass
    with pytest.raises(ConfigError, match="no embedded Redis runs"):
        find_embedded(tmp_path / "data")


def test_kill_9_of_the_starter_leaves_no_orphan_and_loses_nothing(tmp_path: Path) -> None:
    with foreground(tmp_path, "--port", "0") as (process, url, pid):
        with client(url) as writer:
            writer.set("key", "value")
        process.kill()
        process.wait()
        until(lambda: not is_running(pid), "the server ended after its starter")
    with running_server(settings(tmp_path)) as again, client(again.url) as reader:
        assert not again.joined
        assert reader.get("key") == "value"


def test_a_server_whose_starter_is_dead_is_not_joined_but_waited_for(tmp_path: Path) -> None:
    with (
        foreground(tmp_path, "--port", "0") as (process, url, pid),
        contextlib.ExitStack() as stack,
        ThreadPoolExecutor() as pool,
    ):
        with client(url) as writer:
            writer.set("key", "value")
        with guard_asleep(pid):
            process.kill()
            process.wait()
            starting = pool.submit(stack.enter_context, running_server(settings(tmp_path)))
            with pytest.raises(TimeoutError):
                starting.result(timeout=0.5)
            assert is_running(pid)
        again = starting.result(timeout=60)
        with client(again.url) as reader:
            assert reader.get("key") == "value"
        assert not again.joined
        assert again.pid != pid


def test_ctrl_c_reaches_the_starter_alone_which_then_stops_the_server(tmp_path: Path) -> None:
    with foreground(tmp_path, "--port", "0") as (process, _url, pid):
        assert os.getpgid(pid) != process.pid
        assert os.getsid(pid) != os.getsid(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert not is_running(pid)
    assert "Running: redis://:***@127.0.0.1:" in out
    assert "Stopping" in out
    assert "Traceback" not in out + err


def test_embedded_sigterm_ends_the_command_with_status_0(tmp_path: Path) -> None:
    with foreground(tmp_path, "--port", "0") as (process, _url, pid):
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert not is_running(pid)


def test_ctrl_c_twice_leaves_at_once_and_still_no_orphan(tmp_path: Path) -> None:
    with foreground(tmp_path, "--port", "0") as (process, _url, pid):
        os.kill(pid, signal.SIGSTOP)  # the server does not react to a stop
        process.send_signal(signal.SIGINT)
        line = ""
        while "Stopping" not in line:
            assert process.stdout is not None
            line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
        os.kill(pid, signal.SIGCONT)
        until(lambda: not is_running(pid), "the server ended after its starter")


def test_a_server_that_ends_by_itself_is_reported(tmp_path: Path) -> None:
    with foreground(tmp_path, "--port", "0") as (process, _url, pid):
        os.kill(pid, signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
    assert "error: the embedded Redis ended by itself: see server.log" in err
    assert "Traceback" not in err


def test_command_joins_a_running_server_and_reports_it(tmp_path: Path) -> None:
    with foreground(tmp_path, "--port", "0") as (_process, url, _pid):
        with start_bridge(tmp_path, "redis", "--data-dir", "data") as second:
            out, err = second.communicate(timeout=60)
        assert second.returncode == 0, err
        assert f"Already running, started by another process: {masked_url(url)}" in out


def test_command_reports_the_port_used_instead_of_an_occupied_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        with foreground(tmp_path, "--port", str(taken)) as (process, url, _pid):
            assert not url.endswith(f":{taken}/0")
            process.terminate()
            out, _ = process.communicate(timeout=60)
    assert f"Port {taken} is taken by another program." in out


def test_the_port_requested_is_used(tmp_path: Path) -> None:
    port = free_port()
    with running_server(settings(tmp_path, port)) as server:
        assert urlsplit(server.url).port == port
