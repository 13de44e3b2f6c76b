"""`make compare`: the register of other tools, the judgement of a run, and the tables."""

from pathlib import Path

import pytest

from benchmarks.compare import page, peers
from benchmarks.compare.install import requirements
from benchmarks.compare.scene import Arrived, judge
from benchmarks.measure import Sample

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements/compare.txt"
BRIDGE, LOOP = peers.WRITERS[0], peers.WRITERS[1]


def test_every_peer_has_a_program_and_a_locked_package() -> None:
    locked = {each.split("==")[0] for each in requirements(LOCK.read_text("utf-8"))}

    for peer in (*peers.WRITERS, *peers.READERS):
        if peer.package is not None:
            assert peer.package in locked
    for writer in peers.WRITERS[1:]:
        assert (ROOT / writer.arguments[0].replace(".", "/")).with_suffix(".py").exists()
    for reader in peers.READERS:
        if reader.program is not None:
            assert (ROOT / f"benchmarks/compare/programs/{reader.program}.py").exists()


def test_every_package_of_the_lock_has_hashes_and_comes_from_no_named_index() -> None:
    text = LOCK.read_text("utf-8")

    assert all("--hash=sha256:" in each for each in requirements(text))
    assert "index-url" not in "".join(line for line in text.splitlines() if line[:1] != "#")


def test_a_peer_that_is_not_installed_is_not_run_and_the_reason_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "versions", lambda: dict.fromkeys(["redis"]))

    assert "redis is not installed" in (peers.why_not(LOOP) or "")
    assert peers.why_not(BRIDGE) is None


def test_a_trade_is_there_marked_lost_or_duplicated() -> None:
    entries = [
        {"type": "gap", "from": "", "to": "3"},
        *({"type": "trade", "trade_id": number} for number in ("4", "5", "5")),
        {"type": "gap", "from": "6", "to": "7"},
        {"type": "trade", "trade_id": "9"},
    ]

    assert judge(range(4, 10), entries, BRIDGE) == Arrived(6, lost=1, marked=2, doubled=1)


def test_the_tables_have_each_peer_with_its_figures_or_the_reason() -> None:
    sample = Sample(20_000, 25.4, 9, 71, (0.3, 1.6, 4.0))
    arrived = {"Redis killed": Arrived(100, 0, 3, 0)}
    lines = [
        page.Line("bridge", "", is_ours=True, fast=sample, paced=sample, arrived=arrived),
        page.Line(
            "loop <1>",
            "",
            is_ours=False,
            fast=Sample(10_000, 30, 9, 44),
            paced="failed: gone",
            arrived={"Redis killed": Arrived(1000, 20, 0, 2)},
        ),
        page.Line("other", "", is_ours=False, fast="not run: why", paced="", arrived={}),
    ]

    assert list(page.speed_table(lines, 1000))[2:] == [
        "| bridge | **20,000** | **25** | **9** | 71 | **25** | **0.3** | **1.6** |",
        "| loop <1> | 10,000 | 30 | **9** | **44** | failed: gone |  |  |",
        "| other | not run: why |  |  |  |  |  |  |",
    ]
    assert list(page.fault_table(lines, ["Redis killed"]))[2:] == [
        "| bridge | all but 3 marked |",
        "| loop <1> | 20 of 1,000 lost, 2 twice |",
        "| other | – |",
    ]
    picture = page.picture(lines, "today")
    assert "loop &lt;1&gt;" in picture
    assert picture.count("<rect") == 1 + 2 + 2
