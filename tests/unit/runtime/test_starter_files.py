"""The starter files of a new folder: all are written, or none."""

from pathlib import Path

import pytest

from bridge.errors import Fatal
from bridge.runtime.config import load_config
from bridge.runtime.starter_files import write_starter_files


def test_the_files_state_the_defaults(tmp_path: Path) -> None:
    config, _ = write_starter_files(tmp_path / "new" / "folder")

    assert load_config(config, None, {}) == load_config(None, None, {})


@pytest.mark.parametrize("name", ["config.yaml", ".env.example"])
def test_an_existing_file_is_kept_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")

    with pytest.raises(Fatal, match=f"{name} exists already, and nothing was written"):
        write_starter_files(tmp_path)

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Fatal, match="exists already"):
        write_starter_files(tmp_path)

    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")

    with pytest.raises(Fatal, match="taken cannot be written: "):
        write_starter_files(tmp_path / "taken")
