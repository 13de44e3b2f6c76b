"""The entry point: the message for an old Python, and `--help` without imports of commands."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

DOOR = Path(__file__).parents[3] / "bridge" / "__main__.py"


@pytest.mark.parametrize("path", [DOOR, DOOR.with_name("__init__.py")])
def test_an_old_python_can_parse_the_entry_point(path: Path) -> None:
    ast.parse(path.read_text("utf-8"), feature_version=(3, 7))


def test_an_old_python_is_reported_in_one_line() -> None:
    pretend = (
        "import sys, runpy; sys.version_info = (3, 9, 2, 'final', 0); runpy.run_module('bridge')"
    )
    done = subprocess.run(
        [sys.executable, "-c", pretend],
        cwd=DOOR.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: this needs Python 3.11 or newer, and this is Python 3.9: start it with python3.11\n"
    )


def test_help_imports_no_command() -> None:
    source = (
        "import sys; sys.argv = ['x', '--help']\n"
        "from bridge.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('redis', 'pydantic', 'httpx2', 'websockets')\n"
        "print([m for m in sys.modules if m in heavy or m.startswith('bridge.commands.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=DOOR.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
