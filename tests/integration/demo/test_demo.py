"""The demo as a process that cannot start."""

import re
from pathlib import Path

import pytest

from tests.support.demo_run import running_demo

pytestmark = pytest.mark.timeout(150)


def test_demo_folder_that_cannot_be_written_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file, where a folder is wanted")
    with running_demo(tmp_path) as demo:
        assert demo.until_ended() == 2
        assert re.fullmatch(
            r"error: \S+/demo cannot be written \(File exists\): give another with --folder, or "
            r"set TMPDIR\n",
            demo.output(),
        )
