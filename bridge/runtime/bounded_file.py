"""Bounded reads of files named by a user: one may be a device without an end."""

import errno
import os
import select
import stat
from pathlib import Path

MOST_SETTINGS = 1_000_000  # bytes of a file of settings
PIPE_S = 3.0  # `--config <(…)`: its writer may start a moment later
MOST_OF_OURS = 64_000_000  # some hundred bytes for each stream


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """All bytes of the file or pipe. Raises OSError where it cannot be read, has more than
    `most_bytes`, or is a pipe without data for `PIPE_S`, since it may never have a writer.
    """
    with open(path, "rb", opener=_without_waiting) as stream:
        is_pipe = stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
        if is_pipe:
            content = _from_pipe(stream.fileno(), most_bytes)
        else:
            content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", str(path))
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _from_pipe(descriptor: int, most_bytes: int) -> bytes:
    content = bytearray()
    while len(content) <= most_bytes:
        if not select.select([descriptor], [], [], PIPE_S)[0]:
            raise OSError(errno.ETIMEDOUT, f"it is a pipe that brings nothing for {PIPE_S:g} s")
        part = os.read(descriptor, most_bytes)
        if not part:
            break
        content += part
    return bytes(content)


def read_ours(path: Path) -> bytes:
    """All bytes of a file that only this program writes. Raises OSError as `read_bounded` does,
    and for anything but a regular file: a pipe could block without end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return read_bounded(path, MOST_OF_OURS)
