"""A fixture for full disks."""

from collections.abc import Iterator

import pytest

from tests.support.full_disk import FullDisk


@pytest.fixture
def full_disk() -> Iterator[FullDisk]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield FullDisk(monkeypatch)
