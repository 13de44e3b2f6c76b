"""The simulator's command line: help, exit codes, and one line for each usage error."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bridge import __version__
from tests.support import plain_http, warm
from tests.support.simulator_process import ROOT, running_simulator_sync


def simulator(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run(
        [sys.executable, "-m", "simulator", *arguments],
        cwd=ROOT,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )


def test_help_names_every_option() -> None:
    done = simulator("--help")
    assert done.returncode == 0
    for option in (
        *("--host", "--port", "--seed", "--rate", "--market", "--accept-key", "--ledger", "--play"),
        *("--play-lines", "--speed", "--start", "--for", "--events"),
    ):
        assert option in done.stdout, option


@pytest.mark.parametrize(
    "arguments",
    [
        ["--market", "nothing"],
        ["--accept-key", "c2hvcnQ="],
        ["--play", "/no/such/file"],
        ["--play-lines", "1-2"],
        ["--speed", "0"],
        ["--speed", "fast"],
        ["--rate", "-1"],
        ["--port", "70000"],
        ["--nonsense"],
    ],
)
def test_a_wrong_option_is_exit_code_2_without_a_traceback(arguments: list[str]) -> None:
    done = simulator(*arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_lines_beyond_the_recording_are_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_text('{"id":null}\n')
    for lines in ("0-2", "3-2", "x", "1-"):
        assert simulator("--play", str(path), "--play-lines", lines).returncode == 2


def test_occupied_port_exits_1_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = simulator("--port", str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"simulator: cannot open 127.0.0.1:{port}: ")
    assert done.stderr.count("\n") == 1


def test_unwritable_ledger_exits_1_with_one_line(tmp_path: Path) -> None:
    done = simulator("--ledger", str(tmp_path / "no" / "ledger.jsonl"))
    assert done.returncode == 1
    assert "ledger.jsonl: No such file or directory" in done.stderr
    assert done.stderr.count("\n") == 1


def test_simulator_stops_after_the_requested_time() -> None:
    done = simulator("--for", "0.2")
    assert done.returncode == 0
    assert done.stdout.startswith("simulator listening on ws://127.0.0.1:")
    assert done.stdout.count("\n") == 1


def test_any_symbol_and_any_key_can_be_requested() -> None:
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    with running_simulator_sync("--market", "ODD_USDC_PERP", "--accept-key", key) as sim:
        markets = plain_http.get(f"{sim.rest_url}/api/v1/markets").json()
        assert [x["symbol"] for x in markets] == ["ODD_USDC_PERP"]
        account = plain_http.get(f"{sim.rest_url}/simulator/account", params={"key": key})
        assert account.json()["key"] == key


def test_the_version_is_that_of_the_bridge() -> None:
    assert simulator("--version").stdout == f"backpack-simulator {__version__}\n"


def test_simulator_without_its_extra_names_the_package(tmp_path: Path) -> None:
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError(\"No module named 'aiohttp'\")")
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: No module named 'aiohttp': pip install 'backpack-bridge[simulator]'\n"
    )
