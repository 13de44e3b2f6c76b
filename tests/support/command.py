"""The project's commands as processes: start them, read their output, wait for them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import warm

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0


def environment(redis_url: str, **more: str) -> dict[str, str]:
    """This process's environment with a Redis URL, without bridge settings and terminal size."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BRIDGE_") and name not in ("COLUMNS", "LINES")
    }
    return kept | {"PYTHONPATH": str(ROOT), "BRIDGE_REDIS__URL": redis_url, **more}


def run_bridge(
    folder: Path, redis_url: str, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m bridge ARGUMENTS` in `folder` to its end."""
    return warm.run(
        [sys.executable, "-m", "bridge", *arguments],
        cwd=folder,
        env=environment(redis_url, **more),
        text=True,
        timeout=LIMIT_S,
    )


def start_bridge(folder: Path, redis_url: str, *arguments: str) -> subprocess.Popen[str]:
    """Start `python -m bridge ARGUMENTS`; its output is read from pipes."""
    return warm.Process(
        [sys.executable, "-m", "bridge", *arguments],
        cwd=folder,
        env=environment(redis_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
