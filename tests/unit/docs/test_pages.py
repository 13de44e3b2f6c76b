"""The documents' generated parts, links and names agree with the code."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from bridge.contract.causes import CAUSES, GapCause
from bridge.contract.entry import MODEL_BY_TYPE, field_names
from bridge.contract.stream_types import STREAM_SPECS, Scope, StreamType
from bridge.runtime.config import RETENTION_ENTRIES, Config, config_shape
from docs import generate

ROOT = Path(__file__).parents[3]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
VARIABLE = re.compile(r"BRIDGE_[A-Z_]+[A-Z]")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the page's headings."""
    headings = HEADING.findall(without_code(page.read_text("utf-8")))
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings
    }


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def test_the_generated_documents_are_up_to_date() -> None:
    assert generate.outdated() == [], "run python -m docs.generate"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(without_code(page.read_text("utf-8"))):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_named_is_a_setting(page: Path) -> None:
    shape = config_shape()
    for name in set(VARIABLE.findall(page.read_text("utf-8"))):
        here = shape
        for part in name.removeprefix("BRIDGE_").removesuffix("_FILE").lower().split("__"):
            assert here is not None, f"{page.name} names {name}"
            assert part in here, f"{page.name} names {name}"
            here = here[part]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_not_too_long_to_read(page: Path) -> None:
    prose = without_code(page.read_text("utf-8"))
    long = [
        ln for ln in prose.splitlines() if len(ln) > 104 and not ln.startswith(("|", "#", "- ["))
    ]

    assert long == []


def test_contributing_names_only_targets_of_make_that_are_there() -> None:
    named = re.findall(r"make (\w+)", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)

    assert len(named) > 5
    assert set(named) <= set(targets)


def test_the_guide_names_every_section_of_the_configuration() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text("utf-8")

    assert [name for name in Config.model_fields if f"`{name}`" not in guide] == []


def test_the_table_from_idea_to_file_names_only_files_that_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = page.partition("\n## Where things are\n")[2].partition("\n## ")[0]
    named = re.findall(r"`((?:bridge|consumers|simulator|demo|docs|deploy)/[\w./]+)`", table)

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_table_of_stale_streams_names_every_public_type() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    table = page.partition("\n### Stale streams\n")[2].partition("\n\nIf ")[0]
    public = [kind for kind, spec in STREAM_SPECS.items() if not spec.is_private]

    assert [kind for kind in public if f"`{kind}`" not in table] == []


def test_the_guarantees_name_tests_that_are_there() -> None:
    """Tests are named as `tests/…/test_file.py` or `tests/…/test_file.py::test_name`."""
    named = re.findall(
        r"`(tests/[\w./]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    )

    assert len(named) > 20
    for file, name in named:
        assert (ROOT / file).exists(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text("utf-8"), f"{file}::{name}"


def test_config_yaml_names_every_type_of_retention() -> None:
    written = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))

    assert set(written["retention"]) == set(RETENTION_ENTRIES)


def test_the_guide_names_the_fields_of_each_type_that_it_lists_whole() -> None:
    """Not compared: rows with `…`, which list some of the names, and rows for several types."""
    text = (ROOT / "docs" / "guide.md").read_text("utf-8")
    table = text.partition("\n## What is in Redis\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| .*? \| `(\w+)` \| `([a-z_ ]+)` \|", table, re.MULTILINE)
    everywhere = {"type", "event_us", "engine_us", "received_us", "extra"}

    assert len(rows) > 10
    for kind, fields in rows:
        assert set(fields.split()) == {*field_names(MODEL_BY_TYPE[kind])} - everywhere, kind


@pytest.mark.parametrize("kind", StreamType)
def test_the_bridge_s_user_of_redis_may_write_every_form_of_a_stream_type(kind: StreamType) -> None:
    lines = (ROOT / "deploy" / "redis" / "users.acl").read_text("utf-8").splitlines()
    [rights] = [line.split() for line in lines if line.startswith("user bridge ")]
    keys = [word.removeprefix("~") for word in rights if word.startswith("~")]
    spec = STREAM_SPECS[kind]
    names = [kind.value] if spec.has_unscoped_name else []
    names += [f"{kind}.SOL_USDC"] if spec.scope is not Scope.ACCOUNT else []

    assert [name for name in names if not any(fnmatchcase(name, key) for key in keys)] == []


def test_every_cause_of_gaps_is_explained() -> None:
    assert list(CAUSES) == list(GapCause)


@pytest.mark.parametrize(
    ("page", "section"), [("contract.md", "Keys"), ("guide.md", "What is in Redis")]
)
def test_a_table_of_streams_names_every_stream_type(page: str, section: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    table = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]

    assert [kind for kind in StreamType if not re.search(rf"`{kind}[.`]", table)] == []
