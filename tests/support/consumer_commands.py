"""Commands of `python -m consumers`, as processes and in the test's own process.

`run_here` needs no process and takes less time; it is only for commands that read from Redis and do
not configure the log. Tests of exit and output of a process need a process.
"""

import contextlib
import os
import sys
from pathlib import Path
from subprocess import CompletedProcess

from typer.testing import CliRunner

from consumers.__main__ import cli
from tests.support import warm

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


def consumers(folder: Path, *arguments: str, **environment: str) -> CompletedProcess[str]:
    """Run `python -m consumers ARGUMENTS` in `folder` to its end."""
    return warm.run(
        [sys.executable, "-m", "consumers", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        text=True,
        timeout=LIMIT_S,
    )


def run_here(folder: Path, url: str, *arguments: str) -> CompletedProcess[str]:
    """Run a command in this process, in `folder` and with the Redis at `url`; exit code and
    output.
    """
    with contextlib.chdir(folder):
        done = CliRunner().invoke(cli, arguments, env={"BRIDGE_REDIS__URL": url, "COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
