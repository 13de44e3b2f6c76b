"""Commands in unusual environments: character sets, closed files, narrow terminals."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.view.conftest import Bus
from tests.support import warm
from tests.support.command import LIMIT_S, ROOT, environment


def run_shell(
    folder: Path, redis_url: str, shell: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command; its output as bytes. `bridge` and `consumers` name the programs."""
    for program in ("bridge", "consumers"):
        shell = shell.replace(f"{program} ", f"{sys.executable} -m {program} ", 1)
    surroundings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    return subprocess.run(
        ["sh", "-c", shell], cwd=folder, capture_output=True, timeout=60, check=False,
        env={**surroundings, "BRIDGE_REDIS__URL": redis_url, **variables},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "encoding"),
    [
        ("bridge status", "latin-1"),
        *(
            pytest.param(command, encoding, marks=pytest.mark.long)
            for command in ("bridge status", "bridge check --help", "consumers status")
            for encoding in ("latin-1", "ascii")
            if (command, encoding) != ("bridge status", "latin-1")
        ),
    ],
)
def test_character_that_the_terminal_lacks_is_escaped(
    full_bus: Bus, redis_url: str, tmp_path: Path, command: str, encoding: str
) -> None:
    full_bus.client.hset("bridge:status", "→", full_bus.client.hget("bridge:status", "tokyo-1"))

    done = run_shell(tmp_path, redis_url, command, PYTHONIOENCODING=encoding)

    # 1: on a slow machine the bridge counts as silent
    assert done.returncode in (0, 1), done.stderr
    assert b"Traceback" not in done.stdout + done.stderr
    done.stdout.decode(encoding)


@pytest.mark.parametrize(
    "closed",
    [
        "<&- >&- 2>&-",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("2>&-", ">&-", "<&-")),
    ],
)
def test_closed_files_cause_no_crash(
    full_bus: Bus, redis_url: str, tmp_path: Path, closed: str
) -> None:
    done = run_shell(tmp_path, redis_url, f"bridge status {closed}")

    assert done.returncode in (0, 1)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("closed", "is_reported"),
    [
        ("<&- >&- 2>&-", False),
        *(
            pytest.param(closed, is_reported, marks=pytest.mark.long)
            for closed, is_reported in (("2>&-", False), (">&-", True), ("<&-", True))
        ),
    ],
)
def test_command_with_closed_files_fails_and_reports_the_reason_if_possible(
    tmp_path: Path, closed: str, is_reported: bool
) -> None:
    unavailable = run_shell(tmp_path, "redis://127.0.0.1:1", f"bridge status {closed}")

    assert (unavailable.returncode, bool(unavailable.stderr)) == (1, is_reported)
    assert b"Traceback" not in unavailable.stderr


def test_without_colours_and_in_twenty_columns_a_status_is_plain_text(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    done = run_shell(tmp_path, redis_url, "bridge status", NO_COLOR="1", COLUMNS="20")

    assert done.returncode in (0, 1)
    assert b"tokyo" in done.stdout
    assert b"\x1b" not in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["bridge status", "bridge tap trade.SOL_USDC --from beginning",
                                     "bridge --help", "consumers list"])  # fmt: skip
def test_full_disk_for_the_output_is_reported_in_one_sentence(
    full_bus: Bus, redis_url: str, tmp_path: Path, command: str
) -> None:
    with open("/dev/full", "w") as full:
        done = warm.run(
            [sys.executable, "-m", *command.split()],
            cwd=tmp_path,
            env=environment(redis_url),
            stdout=full,
            text=True,
            timeout=LIMIT_S,
        )

    assert done.returncode == 1
    assert done.stderr == "error: what is printed cannot be written: No space left on device\n"


def test_implausible_terminal_width_is_ignored(redis_url: str, tmp_path: Path) -> None:
    done = run_shell(tmp_path, redis_url, "bridge --help", COLUMNS="99999999999")

    assert done.returncode == 0, done.stderr[-500:]
    assert max(map(len, done.stdout.splitlines())) < 1000
