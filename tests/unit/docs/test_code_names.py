"""The source files and the attributes of classes that the documents name exist."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = (
    "backpack_bridge", "bridge", "consumers", "simulator", "demo", "benchmarks", "docs", "deploy",
    "examples", "tests",
)  # fmt: skip
ATTRIBUTE = re.compile(r"`([A-Z]\w+)\.([a-z_]\w*)(?:\(\))?`")
FILE = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|lua|js))`")


@cache
def paths() -> list[Path]:
    """The source files of the project."""
    files = (path for folder in CODE for path in (ROOT / folder).rglob("*"))
    return [path for path in files if path.suffix in {".py", ".lua", ".js"}]


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """Class name → the definitions of classes of that name; only of files that have a class which
    a page names, or one of its bases.
    """
    sources = [path.read_text("utf-8") for path in paths() if path.suffix == ".py"]
    wanted = {owner for page in PAGES for owner, _ in ATTRIBUTE.findall(page.read_text("utf-8"))}
    found: dict[str, list[ast.ClassDef]] = {}
    while wanted:
        chosen = re.compile(rf"^ *class (?:{'|'.join(wanted)})\b", re.MULTILINE)
        bases: set[str] = set()
        for node in (n for s in sources if chosen.search(s) for n in ast.walk(ast.parse(s))):
            if isinstance(node, ast.ClassDef) and node.name in wanted:
                found.setdefault(node.name, []).append(node)
                bases.update(ast.unparse(base) for base in node.bases)
        wanted = {base for base in bases if base.isidentifier()} - found.keys()
    return found


def has(definition: ast.ClassDef, name: str) -> bool:
    """True if a class has or inherits this method or attribute."""
    inherited = [each for base in definition.bases for each in classes().get(ast.unparse(base), [])]
    return name in names(definition) or any(has(each, name) for each in inherited)


def names(definition: ast.ClassDef) -> Iterator[str]:
    """The names of a class's methods, and all names that its code assigns."""
    for node in ast.walk(definition):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name):
                yield name
            case ast.Name(name, ast.Store()) | ast.Attribute(_, name, ast.Store()):
                yield name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_attribute_that_a_page_names_exists(page: Path) -> None:
    missing = [
        f"{owner}.{name}"
        for owner, name in ATTRIBUTE.findall(page.read_text("utf-8"))
        if owner in classes() and not any(has(each, name) for each in classes()[owner])
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    known = ["/" + path.relative_to(ROOT).as_posix() for path in paths()]
    named = FILE.findall(page.read_text("utf-8"))
    assert [name for name in named if not any(path.endswith("/" + name) for path in known)] == []
