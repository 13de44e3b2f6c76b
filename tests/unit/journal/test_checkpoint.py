"""A checkpoint is for one Redis, and keeps the positions of the last other ones."""

import os
from pathlib import Path

from bridge.journal.checkpoint import (
    MAX_OTHERS,
    NAME,
    Checkpoint,
    read_checkpoint,
    write_checkpoint,
)

CONFIRMED = {"trade.SOL_USDC": "9-990"}


def test_the_same_redis_continues_unchanged() -> None:
    checkpoint = Checkpoint(900, "a", CONFIRMED, {"trade.SOL_USDC": 700}, {"b": 3})

    assert checkpoint.turned_to("a") is checkpoint


def test_a_new_redis_begins_at_the_oldest_position_that_the_previous_one_lacks() -> None:
    checkpoint = Checkpoint(900, "a", CONFIRMED, {"trade.SOL_USDC": 700})

    assert checkpoint.turned_to("b") == Checkpoint(700, "b", others={"a": 700})


def test_a_known_redis_continues_at_its_position() -> None:
    checkpoint = Checkpoint(900, "b", CONFIRMED, others={"a": 300})

    assert checkpoint.turned_to("a") == Checkpoint(300, "a", others={"b": 900})


def test_a_recordings_checkpoint_is_taken_by_any_redis() -> None:
    assert Checkpoint(900).turned_to("a") == Checkpoint(900, "a")


def test_only_the_last_other_targets_are_kept() -> None:
    checkpoint = Checkpoint(0, "redis-0")
    for number in range(1, 30):
        checkpoint = checkpoint.turned_to(f"redis-{number}")

    assert list(checkpoint.others) == [f"redis-{number}" for number in range(29 - MAX_OTHERS, 29)]


def test_a_checkpoint_is_read_as_written_also_from_an_earlier_version(tmp_path: Path) -> None:
    checkpoint = Checkpoint(900, "b", CONFIRMED, {"x": 5}, {"a": 300})
    write_checkpoint(tmp_path, checkpoint)
    assert read_checkpoint(tmp_path) == checkpoint

    (tmp_path / "checkpoint.json").write_text(
        '{"offset": 9, "target": "a", "confirmed": {}, "parked": {}}'
    )
    assert read_checkpoint(tmp_path) == Checkpoint(9, "a")


def test_a_pipe_in_place_of_the_checkpoint_is_ignored_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / NAME)

    assert read_checkpoint(tmp_path) is None


def test_an_endless_checkpoint_is_ignored(tmp_path: Path) -> None:
    with (tmp_path / NAME).open("wb") as file:
        file.truncate(5 * 2**30)

    assert read_checkpoint(tmp_path) is None
