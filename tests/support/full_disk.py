"""A disk without room, for tests that put it in the place of `os.write`."""

import os
from typing import NoReturn

import pytest


def full(*_: object) -> NoReturn:
    raise OSError(28, "No space left on device")


class FullDisk:
    """Nothing can be written between `begin` and `end`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def begin(self) -> None:
        self._monkeypatch.setattr(os, "write", full)

    def end(self) -> None:
        self._monkeypatch.undo()
