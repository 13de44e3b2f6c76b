"""Exactly-once files: a file is complete or absent, and is created once.

The recipe: name a file by the entry ID that it follows (the last one of the file before it), and
write it with `put_once`. Of two workers at the same position, one creates the file, and for the
other `put_once` returns False; a worker that dies while writing leaves no visible file.
The contents of the files define the progress, so redelivered entries are recognised by their IDs.
"""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

_HALF = ".half-"  # a file that is being written; one that remains has a dead writer


def put_once(path: Path, write: Callable[[Path], None], *, private: bool = False) -> bool:
    """Create a file with `write`, which gets a temporary path. False if `path` exists already.

    When this returns, the file is on disk and survives a power failure. `private`: other users can
    read neither it nor the folders created for it; `write` then gets an existing, empty file.
    """
    _make(path.parent, 0o700 if private else 0o777)
    half = path.with_name(f"{_HALF}{path.name}.{secrets.token_hex(4)}")
    try:
        if private:
            half.touch(mode=0o600, exist_ok=False)  # before it has content
        write(half)
        _sync(half)
        try:
            os.link(half, path)  # unlike rename, link never replaces an existing file
        except FileExistsError:
            return False
    finally:
        half.unlink(missing_ok=True)
    _sync(path.parent)
    return True


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files of dead writers below a folder.

    A live writer whose unfinished file is removed fails: only the owner of a folder may call this.
    """
    for half in folder.rglob(f"{_HALF}*"):
        with contextlib.suppress(FileNotFoundError):
            half.unlink()


def _make(folder: Path, mode: int) -> None:
    """Create a folder and its missing parents with this mode, each one synced to disk in its
    parent."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(new):
        one.mkdir(mode, exist_ok=True)  # not `parents=True`: it ignores `mode` for the parents
        _sync(one.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
