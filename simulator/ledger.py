"""The ledger: one JSON line for each frame put out, so that a test can say what was really sent, to
whom, and what was withheld; and one for each thing else that happened (connections, subscriptions,
faults, REST).

Bytes of frames go in as they are. Lines are gathered and written every so often; the last line of a
clean stop says so. Refuses to choose what is recorded: the hub does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from simulator.faults.road import Way

BY_FAULTS = ("kept_from", "later", "by")


class Ledger:
    """An open ledger file. `flush` writes what was gathered, `close` ends it."""

    def __init__(self, path: Path, *, seed: int, start_us: int, markets: Sequence[str]) -> None:
        """Start the file anew with its header. Raises OSError when it cannot be written."""
        self._file: BinaryIO = path.open("wb")
        self._lines: list[bytes] = []
        header = {"seed": seed, "start_us": start_us, "markets": list(markets)}
        self._file.write(json.dumps(header, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def record(self, at_us: int, way: Way, frame: bytes, account: str | None = None) -> None:
        """One frame and what became of it. `account` tells two accounts' frames apart."""
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

    def note(self, at_us: int, said: Mapping[str, Any]) -> None:
        """Something that is no frame."""
        self._lines.append(_written({"at_us": at_us, **said}) + b"\n")

    def flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._file.write(b"".join(lines))
            self._file.flush()

    def close(self) -> None:
        """Write what is left and the line that says the stop was clean."""
        self.flush()
        self._file.write(b'{"end":true}\n')
        self._file.close()


def _written(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
