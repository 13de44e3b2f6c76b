"""The ledger: one JSON line for each emitted frame, so that a test can determine what was really
sent, to whom, and what was withheld; and one for each other event (connections, subscriptions,
faults, REST).

Frames are stored byte for byte. Lines are buffered and written periodically; the last line marks a
clean stop. `hub` chooses what is recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from simulator.faults.road import Way

BY_FAULTS = ("kept_from", "later", "by")


class Ledger:
    """An open ledger file. `flush` writes the buffered lines, `close` ends it."""

    def __init__(self, path: Path, *, seed: int, start_us: int, markets: Sequence[str]) -> None:
        """Create the file with its header. Raises OSError when it cannot be written."""
        self._file: BinaryIO = path.open("wb")
        self._lines: list[bytes] = []
        header = {"seed": seed, "start_us": start_us, "markets": list(markets)}
        self._file.write(json.dumps(header, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def record(self, at_us: int, way: Way, frame: bytes, account: str | None = None) -> None:
        """Record a frame and its delivery. `account` distinguishes frames of two accounts."""
        owner = b'"account":"%b",' % account.encode() if account else b""
        touched = b""
        if way.by:
            touched = b"".join(
                b'"%b":%b,' % (name.encode(), _written(getattr(way, name))) for name in BY_FAULTS
            )
        self._lines.append(
            b'{"at_us":%d,"sent":%d,"to":%b,%b%b"frame":%b}\n'
            % (at_us, len(way.to), _written(way.to), touched, owner, frame)
        )

    def note(self, at_us: int, fields: Mapping[str, Any]) -> None:
        """Record an event other than a frame."""
        self._lines.append(_written({"at_us": at_us, **fields}) + b"\n")

    def flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._file.write(b"".join(lines))
            self._file.flush()

    def close(self) -> None:
        """Write the buffered lines and the line that marks a clean stop."""
        self.flush()
        self._file.write(b'{"end":true}\n')
        self._file.close()


def _written(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
