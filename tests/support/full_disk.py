"""A full disk: a replacement of `os.write` that fails."""

import os
from typing import NoReturn

import pytest


def full(*_: object) -> NoReturn:
    raise OSError(28, "No space left on device")


class FullDisk:
    """Makes every write fail between `begin` and `end`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def begin(self) -> None:
        self._monkeypatch.setattr(os, "write", full)

    def end(self) -> None:
        self._monkeypatch.undo()
