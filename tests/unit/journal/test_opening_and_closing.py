"""A bridge opens its journal, and closes it whatever it ends with."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.app import Bridge
from bridge.errors import Fatal
from bridge.journal.segments import read_lines
from bridge.runtime.config import Config

STREAM = "trade.SOL_USDC"


class OwnedByAnother(Fatal):
    """What a bridge ends with."""


def bridge_with(folder: Path) -> Bridge:
    config = {"streams": [STREAM], "journal": {"dir": str(folder)}}
    return Bridge(Config.model_validate(config), None, "redis://127.0.0.1:1/0")


def end_of_a(bridge: Bridge) -> None:
    with bridge._journal():
        bridge.hearing.opened("public-1", [STREAM])
        raise OwnedByAnother("what was heard in the last 50 ms is only in memory")


def test_what_was_heard_last_is_in_the_journal_whatever_ends_the_bridge(tmp_path: Path) -> None:
    with pytest.raises(OwnedByAnother):
        end_of_a(bridge_with(tmp_path))

    assert b"public-1" in [line for _, line in read_lines(tmp_path, 0)][-1]
    assert (tmp_path / "checkpoint.json").exists()


@pytest.mark.parametrize(("mode", "is_told"), [(0o755, True), (0o750, False), (0o700, False)])
def test_a_folder_that_others_can_look_into_is_told(
    mode: int, is_told: bool, tmp_path: Path
) -> None:
    tmp_path.chmod(mode)

    with capture_logs() as logs, bridge_with(tmp_path)._journal():
        pass

    assert ("journal_open_to_others" in [line["event"] for line in logs]) is is_told
