"""The commands of README.md and docs/guide.md that install, run as printed.

Nothing is downloaded: pip's variables make it build with, and accept, the packages of this
environment.
"""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip's value for "off"
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH that begins with an empty environment, in which the packages of this one are
    visible.
    """
    place = tmp_path / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    scheme = {"base": str(place), "platbase": str(place)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return f"{place / 'bin'}:{Path(sys.prefix) / 'bin'}:/usr/bin:/bin"


def run(commands: str, folder: Path, path: str, **variables: str) -> str:
    """Run the commands, which must all succeed; their output."""
    done = subprocess.run(
        ["sh", "-e", "-c", commands], cwd=folder, capture_output=True, text=True, timeout=240,
        env={"PATH": path, "HOME": os.environ["HOME"], **OFFLINE, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied(folder: Path) -> Path:
    """A copy of the files that git tracks, so that a build changes nothing in the repository."""
    subprocess.run(["git", "checkout-index", "-a", f"--prefix={folder}/"], cwd=ROOT, check=True)
    return folder


def test_the_two_commands_of_the_readme_show_the_demo(tmp_path: Path, path: str) -> None:
    [commands] = blocks("README.md", "sh")

    output = run(commands, copied(tmp_path / "repository"), path, FOR="5")

    assert "quarantined: 0" in output


def test_the_wheel_of_the_guide_is_installed_with_its_commands(tmp_path: Path, path: str) -> None:
    [commands] = [block for block in blocks("docs/guide.md", "") if "pip wheel" in block]

    folder = copied(tmp_path / "repository")
    run(commands, folder, path)

    assert run("backpack-bridge init && ls -A", tmp_path / "venv" / "bin", path)
    assert [each.name for each in (folder / "dist").iterdir()] == [
        "backpack_bridge-0.1.0-py3-none-any.whl"
    ]
