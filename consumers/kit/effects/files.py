"""Effect-once for files: a file is there wholly or not at all, and is made once.

The recipe: name a file by the entry ID that it comes after (the last one of the file before it),
and write it with `put_once`. Of two workers that have come to the same place, one writes its file,
and for the other `put_once` returns False; a worker that died half-way leaves nothing that counts.
How far the files go is decided by what is in them, so redelivered entries are known by their IDs.
"""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

_HALF = ".half-"  # a file that is being written; one that stays has a writer that died


def put_once(path: Path, write: Callable[[Path], None], *, private: bool = False) -> bool:
    """Make a file with `write`, to which a path is given; False where `path` is there already.

    When this returns, the file is on disk, also across a power failure. `private`: other users can
    read neither it nor the folders that are new for it; `write` finds an empty file to write into.
    """
    _make(path.parent, 0o700 if private else 0o777)
    half = path.with_name(f"{_HALF}{path.name}.{secrets.token_hex(4)}")
    try:
        if private:
            half.touch(mode=0o600, exist_ok=False)  # before there is anything in it
        write(half)
        _sync(half)
        try:
            os.link(half, path)  # unlike a rename, this never replaces
        except FileExistsError:
            return False
    finally:
        half.unlink(missing_ok=True)
    _sync(path.parent)
    return True


def remove_unfinished(folder: Path) -> None:
    """Remove what dead writers have left half-written below a folder.

    A live writer whose unfinished file is removed fails: only the owner of a folder may do this.
    """
    for half in folder.rglob(f"{_HALF}*"):
        with contextlib.suppress(FileNotFoundError):
            half.unlink()


def _make(folder: Path, mode: int) -> None:
    """A folder, and those above it: each that is new has this mode, and is on disk in the one that
    holds it."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(new):
        one.mkdir(mode, exist_ok=True)  # not `parents`: those would have the mode of the umask
        _sync(one.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
