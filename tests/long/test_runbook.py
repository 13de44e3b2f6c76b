"""The commands of the runbook in docs/operations.md, run as printed."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.bridge_process import environment
from tests.support.bridge_run import DEMO_KEYS
from tests.support.drill import ROOT, Drill, drill

pytestmark = pytest.mark.timeout(300)

BLOCK = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGE = "127.0.0.1:9464"


def commands() -> list[str]:
    """Each command once, in the order of the page."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    runbook = page.partition("\n## Runbook\n")[2].partition("\n## ")[0]
    lines = [line for block in BLOCK.findall(runbook) for line in block.splitlines()]
    return list(dict.fromkeys(lines))


def run(one: Drill, command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the bridge's folder, with its environment and this Python."""
    words = shlex.split(command.replace(PAGE, one.bridge_pages.address))
    folder = one.folder / "a"
    variables = environment(**DEMO_KEYS)
    if words[0] == "python":
        whole = [sys.executable, *words[1:]]
        return warm.run(whole, cwd=folder, env=variables, text=True, timeout=60)
    if words[0] == "redis-cli" and shutil.which("redis-cli") is None:
        with one.server.client() as client:  # sends the same command to the same server
            reply = client.execute_command(*words[1:])
        return subprocess.CompletedProcess(words, 0, str(reply), "")
    if words[0] == "redis-cli":
        words[1:1] = ["-p", str(one.server.port)]
    if words[0] == "promtool":
        folder = ROOT
    return subprocess.run(
        words, cwd=folder, env=variables, capture_output=True, text=True, timeout=60
    )


def test_the_runbook_has_commands_for_every_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    sections = page.partition("\n## Runbook\n")[2].partition("\n## ")[0].split("\n### ")[1:]

    assert [each.splitlines()[0] for each in sections if not BLOCK.search(each)] == []


# Commands that print nothing for a healthy system.
MAY_BE_EMPTY = ("deadletters list", "quarantine", "bridge:gaps")


async def test_every_command_of_the_runbook_runs_and_states_something(tmp_path: Path) -> None:
    async with drill(tmp_path) as one:
        for command in commands():
            program = shlex.split(command)[0]
            if program in ("curl", "promtool") and shutil.which(program) is None:
                continue
            done = run(one, command)

            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr, command
            if not any(each in command for each in MAY_BE_EMPTY):
                assert done.stdout.strip(), command
