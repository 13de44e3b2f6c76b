"""The wheel, built once per run of tests and installed into its own environment.

The packages that it needs are those of this environment; nothing is downloaded.
"""

import fcntl
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 150


def python_with_the_wheel(factory: pytest.TempPathFactory) -> Path:
    """The Python of that environment; its scripts are in the same folder."""
    base = factory.getbasetemp()
    several = "PYTEST_XDIST_WORKER" in os.environ  # each worker has a folder in a common one
    folder = (base.parent if several else base) / "wheel"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            _install(folder)
            (folder / "installed").touch()
    return folder / "venv" / "bin" / "python"


def run(
    folder: Path, command: Sequence[str | Path], **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end in `folder`; PATH is the only variable besides `variables`."""
    return subprocess.run(
        command, cwd=folder, env={"PATH": "/usr/bin:/bin"} | variables, capture_output=True,
        text=True, timeout=LIMIT_S,
    )  # fmt: skip


def _install(folder: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT_S)
    [wheel] = folder.glob("*.whl")
    place = folder / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "-q"]
    offline = ["--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *offline, str(wheel)], check=True, timeout=LIMIT_S)
    scheme = {"base": str(place), "platbase": str(place)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # Python ignores .pth files of packages on this path, so the checkout is not found.
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))
