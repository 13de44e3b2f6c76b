"""`python -m bridge …` as a process with its own folder and environment."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import warm

ROOT = Path(__file__).parents[2]


def environment(**variables: str) -> dict[str, str]:
    """A minimal environment, without this machine's BRIDGE_ variables and keys."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    } | variables


def run_bridge(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in `folder`; exit code and output."""
    return warm.run(
        [sys.executable, "-m", "bridge", *arguments],
        cwd=folder,
        env=environment(**variables),
        text=True,
        timeout=50,
    )


def start_bridge(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start the command in its own process group, as a terminal does; use it in a `with`."""
    return warm.Process(
        [sys.executable, "-m", "bridge", *arguments],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
