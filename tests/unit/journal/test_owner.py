"""The owner of a journal's folder; the journal of another owner is set aside."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from bridge.journal.owner import Owner, claim, read_owner
from bridge.journal.segments import SegmentReader, SegmentWriter, list_segments

REAL = Owner("wss://ws.backpack.exchange", "")
DESK = Owner("ws://127.0.0.1:8765", "")


def write(folder: Path, owner: Owner, line: bytes) -> Path | None:
    writer = SegmentWriter(folder, 1000, owner)
    writer.write([line + b"\n"])
    writer.close()
    return writer.set_aside


def lines(folder: Path) -> list[bytes]:
    segments = list_segments(folder)
    return b"".join(SegmentReader(each, each.start).read(1000) for each in segments).splitlines()


def test_the_same_owner_continues(tmp_path: Path) -> None:
    assert write(tmp_path, REAL, b"one") is None
    assert write(tmp_path, REAL, b"two") is None

    assert lines(tmp_path) == [b"one", b"two"]


def test_another_exchanges_journal_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path, DESK, b"made")
    (tmp_path / "checkpoint.json").write_text("{}")

    aside = write(tmp_path, REAL, b"real")

    assert aside is not None
    assert lines(aside) == [b"made"]
    assert (aside / "checkpoint.json").exists()
    assert not (tmp_path / "checkpoint.json").exists()
    assert lines(tmp_path) == [b"real"]


def test_another_accounts_journal_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path, Owner(REAL.exchange, "mine"), b"mine")

    assert write(tmp_path, Owner(REAL.exchange, "yours"), b"yours") is not None


def test_a_journal_of_public_streams_only_is_taken_by_any_account(tmp_path: Path) -> None:
    write(tmp_path, REAL, b"public")

    assert write(tmp_path, Owner(REAL.exchange, "mine"), b"mine") is None
    assert write(tmp_path, REAL, b"public again") is None
    assert write(tmp_path, Owner(REAL.exchange, "yours"), b"yours") is not None


def test_a_journal_whose_owner_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path, DESK, b"made")
    (tmp_path / "owner.json").write_text("")

    aside = write(tmp_path, REAL, b"real")

    assert aside is not None
    assert lines(aside) == [b"made"]
    assert lines(tmp_path) == [b"real"]


def test_the_owners_name_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, Owner(REAL.exchange), b"public")

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, Owner(REAL.exchange, "mine"), b"mine")
    monkeypatch.undo()

    assert write(tmp_path, REAL, b"public again") is None
    assert lines(tmp_path) == [b"public", b"public again"]


def test_a_pipe_in_place_of_the_owners_name_is_an_error_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "owner.json")

    assert read_owner(tmp_path) is None
    with pytest.raises(OSError, match="it is no file"):
        claim(tmp_path, Owner("wss://x", ""))


@pytest.mark.parametrize("moved", range(4))
def test_a_journal_that_was_set_aside_in_part_is_set_aside_whole_at_the_next_start(
    moved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was killed after so many of its files."""
    claim(tmp_path, REAL)
    for name in ("00000000000000000000.journal", "00000000000000000100.journal", "checkpoint.json"):
        (tmp_path / name).write_text("of the real exchange")
    rename, renamed = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        renamed.append(self)
        if len(renamed) > moved:
            raise OSError(5, "killed")
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(OSError, match="killed"):
            claim(tmp_path, DESK)
    claim(tmp_path, DESK)

    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {"owner.json"}
    assert read_owner(tmp_path) == DESK
