"""A checkpoint is used only if all its values are plausible."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.journal.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

CONFIRMED = {"trade.SOL_USDC": "9-990"}
WHOLE = Checkpoint(900, "b", CONFIRMED, {"x": 5}, {"a": 300}, end=1_000)


def test_a_written_checkpoint_is_read_again(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, WHOLE)

    assert read_checkpoint(tmp_path) == WHOLE
    facts = json.loads((tmp_path / "checkpoint.json").read_text())
    assert facts["suspended"] == {"x": 5}


@pytest.mark.parametrize("word", ["suspended", "parked"])
def test_spellings_of_earlier_versions_are_read(word: str, tmp_path: Path) -> None:
    facts = {"offset": 9, "target": "a", "confirmed": {}, word: {"x": 5}}
    (tmp_path / "checkpoint.json").write_text(json.dumps(facts))

    assert read_checkpoint(tmp_path) == Checkpoint(9, "a", {}, {"x": 5})


@given(place=st.floats(0, 1, exclude_max=True), wrong=st.integers(1, 255))
def test_a_changed_byte_makes_no_other_checkpoint(
    place: float, wrong: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    write_checkpoint(folder, WHOLE)
    content = bytearray((folder / "checkpoint.json").read_bytes())
    content[int(place * len(content))] ^= wrong
    (folder / "checkpoint.json").write_bytes(content)

    assert read_checkpoint(folder) in (None, WHOLE)


@pytest.mark.parametrize(
    "text",
    [
        '{"offset": 1, "target": "", "confirmed": {"a": "x"}, "parked": {}}',
        '{"offset": Infinity, "target": "", "confirmed": {}, "parked": {}}',
        '{"offset": 1, "target": "", "confirmed": [], "parked": {}}',
        '{"offset": 1, "target": "", "confirmed": {}, "parked": {"a": "x"}}',
        '{"offset": -1, "target": "", "confirmed": {}, "parked": {}}',
        '{"offset": 0, "target": "", "confirmed": {}, "parked": {"a": -5}}',
        '{"offset": 100000000000000000, "target": "", "confirmed": {}, "parked": {}}',
        '{"offset": 5, "target": "", "confirmed": {}, "parked": {}, "end": 4}',
        '{"offset": 1, "target": "", "confirmed": {}}',
        "[" * 100_000,
        "[]",
        "",
    ],
)  # fmt: skip
def test_an_implausible_checkpoint_is_ignored(text: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text(text)

    assert read_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        (Checkpoint(900, "b"), Checkpoint(900, "b")),
        (Checkpoint(901, "b"), None),
        (Checkpoint(9, "b", suspended={"x": 901}), None),
        (Checkpoint(9, "b", others={"a": 901, "c": 5}), Checkpoint(9, "b", others={"c": 5})),
    ],
)
def test_only_positions_within_the_journal_are_used(
    checkpoint: Checkpoint, expected: Checkpoint | None
) -> None:
    assert checkpoint.believed(900) == expected


def test_a_checkpoint_turned_to_another_redis_keeps_the_journals_length() -> None:
    assert WHOLE.turned_to("c") == Checkpoint(5, "c", others={"a": 300, "b": 5}, end=1_000)
