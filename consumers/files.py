"""Effect-once for files: a file is there wholly or not at all, and is made once.

The recipe: name a file by the entry ID that it comes after (the last one of the file before it),
and put it with `put_once`. Of two workers that have come to the same place, one puts its file, and
the other is told and looks again; a worker that died half-way has left nothing that counts. What is
in the files is the truth about how far they go, so that redelivered entries are known by their IDs.
"""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

_HALF = ".half-"  # a file that is being written; one that stays was its writer's last deed


def put_once(path: Path, write: Callable[[Path], None]) -> bool:
    """Make a file with `write`, to which a path is given; False where `path` is there already.

    When this returns, the file is on disk, also across a power failure.
    """
    _make(path.parent)
    half = path.with_name(f"{_HALF}{path.name}.{secrets.token_hex(4)}")
    try:
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


def sweep(folder: Path) -> None:
    """Remove what dead writers have left half-written below a folder.

    A writer that still lives and is swept fails to put its file: only the owner of a folder sweeps.
    """
    for half in folder.rglob(f"{_HALF}*"):
        with contextlib.suppress(FileNotFoundError):
            half.unlink()


def _make(folder: Path) -> None:
    """A folder, and those above it: each that is new is on disk in the one that holds it."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in new:
        _sync(one.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
