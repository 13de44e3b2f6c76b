"""Every extra that a page, an error message or an example names exists."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
NAMED = re.compile(r"(?:backpack-bridge|\bpip install (?:-e )?'\.|\.whl)\[([a-z][a-z,-]*)\]")
PLACES = ("README.md", "docs/*.md", "Makefile", "Dockerfile")
ROOMS = ("bridge", "consumers", "simulator", "demo", "examples")


def named() -> dict[str, set[str]]:
    """The extras named by each file that names any."""
    files = [file for place in PLACES for file in ROOT.glob(place)]
    files += [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    found = {
        str(file.relative_to(ROOT)): {
            extra for names in NAMED.findall(file.read_text("utf-8")) for extra in names.split(",")
        }
        for file in files
    }
    return {file: extras for file, extras in found.items() if extras}


def test_every_extra_that_is_named_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = set(project["optional-dependencies"])
    result = named()

    assert "demo" in result["README.md"]
    assert "archive" in result["docs/guide.md"]
    assert {file: extras - known for file, extras in result.items() if extras - known} == {}
