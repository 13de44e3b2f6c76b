"""The simulator's ledger; of a long one only the requested part is in memory."""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FRAME = b'"frame":'
STREAM = b'"stream":"'


def symbol_of(stream: str) -> str:
    """The market of a trade or depth stream, without the window."""
    rest = stream.split(".", 1)[1]
    window, _, symbol = rest.partition(".")
    return symbol if window.endswith("ms") and window[:-2].isdigit() else rest


class Line(NamedTuple):
    """One frame of the exchange, and the connections that it was sent to."""

    at_us: int
    to: list[int]
    touched: list[int]  # connections where a fault withheld or delayed it
    data: dict[str, Any]


class ExchangeLedger:
    """`notes`: all lines that are not frames. `frames`: the frames of one stream, in order."""

    def __init__(self, path: Path) -> None:
        self.notes: list[dict[str, Any]] = []
        self._places: dict[str, array[int]] = {}
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        place = 0
        while line := self._map.readline():
            self._index(place, line)
            place = self._map.tell()

    @property
    def streams(self) -> list[str]:
        return sorted(self._places)

    def frames(self, stream: str) -> Iterator[Line]:
        for place in self._places.get(stream, ()):
            end = self._map.find(b"\n", place)
            line = json.loads(self._map[place:end])
            touched = [*line.get("kept_from", ()), *line.get("later", ())]
            yield Line(line["at_us"], line["to"], touched, line["frame"]["data"])

    def skipped(self, stream: str) -> set[int]:
        """The IDs that the market's numbering has skipped."""
        whole = f"{stream.split('.')[0]}.{symbol_of(stream)}"
        jumps = [note for note in self.notes if note.get("skipped") == whole]
        return {number for note in jumps for number in range(note["from"], note["to"] + 1)}

    def _index(self, place: int, line: bytes) -> None:
        if FRAME not in line:
            self.notes.append(json.loads(line))
            return
        name = line.rpartition(STREAM)[2].partition(b'"')[0].decode()
        self._places.setdefault(name, array("Q")).append(place)
