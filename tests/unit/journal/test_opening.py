"""Opening a journal: owner, permissions, lock, and folders that cannot be made."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.errors import Fatal
from bridge.journal.opening import JournalSettings, open_late, open_log
from bridge.journal.owner import Owner
from bridge.journal.segments import JournalInUse
from tests.support.journal_subject import NOW_US, frame, read_all, short_forms


def settings_of(folder: Path, exchange: str = "ws://127.0.0.1:8765") -> JournalSettings:
    return JournalSettings(folder, Owner(exchange), 10_000, 1 << 30, 86_400, "off", 10_000)


@pytest.mark.parametrize(("mode", "is_told"), [(0o755, True), (0o750, False), (0o700, False)])
def test_a_folder_that_others_can_read_is_reported(
    mode: int, is_told: bool, tmp_path: Path
) -> None:
    tmp_path.chmod(mode)

    with capture_logs() as logs:
        log, _ = open_log(settings_of(tmp_path), lambda: NOW_US)
    log.close()

    assert ("journal_open_to_others" in [line["event"] for line in logs]) is is_told


def test_the_journal_of_another_exchange_is_set_aside_with_its_checkpoint(tmp_path: Path) -> None:
    log, _ = open_log(settings_of(tmp_path), lambda: NOW_US)
    log.append(frame(0))
    log.close()
    (tmp_path / "checkpoint.json").write_text("{}")

    with capture_logs() as logs:
        log, checkpoint = open_log(settings_of(tmp_path, "ws://127.0.0.1:9999"), lambda: NOW_US)

    assert "journal_of_another_set_aside" in [line["event"] for line in logs]
    assert checkpoint is None
    assert read_all(log.cursor(0)) == []
    log.close()


def test_a_journal_that_is_written_by_another_process_is_an_error(tmp_path: Path) -> None:
    log, _ = open_log(settings_of(tmp_path), lambda: NOW_US)

    with pytest.raises(JournalInUse):
        open_log(settings_of(tmp_path), lambda: NOW_US)
    log.close()


def test_a_folder_that_cannot_be_made_is_tried_again_later(tmp_path: Path) -> None:
    folder = tmp_path / "file" / "journal"
    (tmp_path / "file").write_text("")

    log, checkpoint = open_log(settings_of(folder), lambda: NOW_US)
    log.append(frame(0))
    with pytest.raises((OSError, Fatal)):
        open_late(log, settings_of(folder))
    (tmp_path / "file").unlink()

    assert checkpoint is None
    assert log.is_broken
    assert log.trouble.startswith(f"cannot write {folder}: ")
    assert open_late(log, settings_of(folder)) == (0, None)
    assert short_forms(read_all(log.cursor(0))) == [0]
    log.close()
