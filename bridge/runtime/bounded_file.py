"""Files that a user names, read up to a bound: one may be a device that has no end."""

import errno
from pathlib import Path

MOST_SETTINGS = 1_000_000  # bytes of a file of settings
MOST_OF_OURS = 64_000_000  # some hundred bytes for each stream


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """All of the file. Raises OSError where it cannot be read or has more than that."""
    with path.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", str(path))
    return content


def read_ours(path: Path) -> bytes:
    """All of a file that only this program writes. Raises OSError as above, and where something
    else stands in its place: a pipe would be waited for without an end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return read_bounded(path, MOST_OF_OURS)
