"""The samples' output printed in docs/samples.md and docs/guide.md, checked by running them."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from consumers.handlers.archive import Archive
from consumers.kit.worker.loading import SAMPLES, load
from consumers.testing import EventFactory, Trial

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "samples.md").read_text("utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def printed_tests() -> dict[str, Any]:
    [block] = [block for block in blocks(PAGE, "python") if "def test_" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    return {name: made for name, made in names.items() if name.startswith("test_")}


@pytest.mark.parametrize("name", printed_tests())
def test_the_printed_tests_pass(name: str) -> None:
    printed_tests()[name]()


def test_the_query_of_the_guide_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    factory, trial = EventFactory(start="2026-09-02T23:59:59"), Trial(Archive, "trade.SOL_USDC")
    for price in ("100.5", "99.25", "101"):
        trial.deliver(factory.trade(price, "0.1"))
    trial.deliver(factory.trade("98", "2", after_s=1), factory.trades_missing(3))
    trial.idle(stopping=True)
    [query] = blocks(GUIDE, "sql")
    duckdb: Any = import_module("duckdb")  # a slow import, not for other tests
    found = duckdb.sql(query)
    assert found.columns == ["stream", "day", "trades", "volume", "open", "close"]
    assert [
        (stream, str(day), trades, float(volume), first, last)
        for stream, day, trades, volume, first, last in found.fetchall()
    ] == [
        ("trade.SOL_USDC", "2026-09-02", 3, 0.3, "100.5", "101"),
        ("trade.SOL_USDC", "2026-09-03", 1, 2.0, "98", "98"),
    ]


def test_every_sample_and_each_of_its_options_has_its_place() -> None:
    for name in SAMPLES:
        assert f"\n### {name}\n" in PAGE
        assert f"`{name}`" in GUIDE
        assert f"| `{name}` | {load(name).mode} |" in PAGE


def test_the_files_that_the_page_links_are_there() -> None:
    for target in re.findall(r"\]\((\.\./[^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
