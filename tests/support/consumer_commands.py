"""Commands of `python -m consumers` inside the test's process: no half second for a new one.

Only for those that fetch from Redis and set up no logs; how a process ends is for `test_cli`.
"""

import contextlib
from pathlib import Path
from subprocess import CompletedProcess

from typer.testing import CliRunner

from consumers.__main__ import cli


def run_here(folder: Path, url: str, *arguments: str) -> CompletedProcess[str]:
    """Run it in that folder, against that Redis; its exit code and what it printed."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(cli, arguments, env={"BRIDGE_REDIS__URL": url, "COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
