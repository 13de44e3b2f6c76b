"""One line of the journal (pure): what reached the bridge, when, on which connection.

    <received_us> <kind> <connection> <body>

    F  a frame, as it came             O  connection opened: {"name", "streams"}
    B  a frame that does not fit       C  it is to hear other streams: {"streams"}
       on a line, as base64            A  the exchange has answered on it, at <its own time, µs>,
                                          but not about <stream> <stream>…: asked for later;
                                          until=<µs>: asked then, long before (0: no answer came)
                                       D  a stream is silent on it: {"stream", "since_us"}
                                       L  connection lost: {"cause"}
    R  a REST body: <stream>[/<what>]  H  marks of an earlier bridge: {stream: heard_us}
    P  a process started               S  a segment's first line: what is known where it begins
    N  heard, and in no journal:
       {stream: [from_us, to_us]}, of the times when its frames came

An `N` comes when the journal can be written again after it could not; what happened to connections
meanwhile follows it, with its own times.

Lines are for people and ordinary tools; a line that is not of this form is passed over and counted.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from bridge.pipeline.ear import UNSURE_US

UNTIL = "until="
MAX_DIGITS = 16  # µs since 1970 until the year 2286


class Kind(StrEnum):
    """What a line records."""

    FRAME = "F"
    BINARY = "B"
    OPENED = "O"
    CHANGED = "C"
    ANSWERED = "A"
    DOUBTED = "D"
    LOST = "L"
    REST = "R"
    MARKS = "H"
    STARTED = "P"
    STATE = "S"
    UNWRITTEN = "N"


FRAMES = (Kind.FRAME, Kind.BINARY)
_KINDS = {kind.value.encode(): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Record:
    """A line that was read. `connection` is 0 where none is meant."""

    received_us: int
    kind: Kind
    connection: int
    body: bytes


class Answer(NamedTuple):
    """An answer of the exchange, as `Hearing.answered` is told of it."""

    at_us: int
    unasked: Sequence[str] = ()
    until_us: int | None = None


def render_answer(answer: Answer) -> bytes:
    """The body of its line. That it was asked long before stands among the streams that it is not
    about: earlier versions pass over it there.
    """
    at_us, unasked, until_us = answer
    took_long = until_us is not None and until_us + UNSURE_US < at_us
    return " ".join([str(at_us), *unasked, *([f"{UNTIL}{until_us}"] if took_long else [])]).encode()


def read_answer(body: bytes, received_us: int) -> Answer:
    """The answer of a line; the earliest versions did not say when. Raises ValueError."""
    at_us, *rest = body.decode().split() or [str(received_us)]
    until_us = [int(each.removeprefix(UNTIL)) for each in rest if each.startswith(UNTIL)]
    unasked = [each for each in rest if not each.startswith(UNTIL)]
    return Answer(int(at_us), unasked, until_us[0] if until_us else None)


def render(received_us: int, kind: Kind, connection: int, body: bytes) -> bytes:
    """The line, with its end. Bodies other than frames must not contain a line feed."""
    return b"%d %b %d %b\n" % (received_us, kind.value.encode(), connection, body)


def render_record(record: Record) -> bytes:
    """A record's line."""
    if record.kind in FRAMES:
        return render_frame(record.received_us, record.connection, record.body)
    return render(record.received_us, record.kind, record.connection, record.body)


def render_frame(received_us: int, connection: int, frame: str | bytes) -> bytes:
    """A frame's line."""
    body = frame.encode(errors="surrogatepass") if isinstance(frame, str) else frame
    if b"\n" in body:
        return render(received_us, Kind.BINARY, connection, base64.b64encode(body))
    return b"%d F %d %b\n" % (received_us, connection, body)


def read(line: bytes) -> Record | None:
    """The record of a line (without its end); None where it is not one."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or not (_is_number(parts[0]) and _is_number(parts[2])):
        return None
    kind = _KINDS.get(parts[1])
    if kind is None:
        return None
    body = parts[3]
    if kind is Kind.BINARY:
        try:
            body = base64.b64decode(body, validate=True)
        except binascii.Error:
            return None
    return Record(int(parts[0]), kind, int(parts[2]), body)


def _is_number(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) <= MAX_DIGITS
