"""Files that a user names, read up to a bound: one may be a device that has no end."""

import errno
from pathlib import Path

MOST_SETTINGS = 1_000_000  # bytes of a file of settings


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """All of the file. Raises OSError where it cannot be read or has more than that."""
    with path.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", str(path))
    return content
