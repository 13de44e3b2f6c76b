"""Encodes a record of the core as one line of the journal, and decodes it (pure).

    <checksum> <received_us> <kind> <connection> <body>

    F  a frame, unchanged              O  connection opened: {"name", "streams"}
    B  a frame that contains a line    C  its streams change: {"streams"}
       feed, as base64                 A  answered at <the exchange's time, µs>, except about
                                          <stream> <stream>…; until=<µs>: the time of its ping, if
                                          long before (0: no pong, only time has passed)
                                       D  a stream is suspected on it: {"stream", "since_us"}
                                       L  connection lost: {"cause"}
    R  a REST body: <stream>[/<kind>]  H  watermarks of an earlier bridge: {stream: µs}
    P  a process started               S  a segment's first line: the state where it begins
    G  a record of the gap log: the fields of its entry
    N  records missing in the journal: [<cause>] {stream: [from_us, to_us]}, the times of receipt of
       the frames; the stream * is every stream. In place of the connection: the position up to
       which the log was written when the loss began

The checksum is the CRC-32 of the rest of the line, as eight hexadecimal digits. Lines of earlier
versions have none and are read, too. A line that cannot be read is damage: it is never mistaken for
another record, whichever byte of it was changed.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zlib import crc32

from bridge.contract.causes import GapCause
from bridge.contract.json_text import parsed
from bridge.core.records import (
    Answered,
    BodyKind,
    Frame,
    GapLogged,
    Lost,
    Missing,
    Opened,
    Record,
    RestBody,
    SegmentState,
    Started,
    Subscribed,
    Suspected,
    Watermarks,
)

_tuple = tuple.__new__  # faster than a NamedTuple's constructor, a Python function around it

PRIVATE_STREAM = b'"stream":"account.'  # in a private frame, as the exchange writes it
CHECKSUM_BYTES = 9  # eight digits and a space
MAX_DIGITS = 16  # µs since 1970 until the year 2286
UNTIL = "until="
EVERY_STREAM = "*"
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
# Causes as earlier versions spelled them; an unknown cause is read as `connection lost`.
_OLD_CAUSES = {"silent": GapCause.STALE, "buffer full": GapCause.OVERFLOW}
_NAMES = {
    "F": "frame", "B": "binary", "O": "opened", "C": "subscribed", "A": "answered",
    "D": "suspected", "L": "lost", "R": "rest", "H": "watermarks", "P": "started", "S": "state",
    "N": "missing", "G": "gap logged",
}  # fmt: skip


# ---- lines -----------------------------------------------------------------------------------


def encode_frame(frame: Frame) -> bytes:
    """The line of a frame, with its line feed."""
    [line] = encode_frames(frame.received_us, frame.connection, [frame.body])
    return line


def encode_frames(received_us: int, connection: int, bodies: Iterable[bytes]) -> list[bytes]:
    """The lines of frames that were read at once on one connection, with their line feeds."""
    head = b"%d F %d " % (received_us, connection)
    checked = crc32(head)
    return [
        b"%08x %b%b\n" % (crc32(body, checked), head, body)
        if b"\n" not in body
        else _encode_binary(received_us, connection, body)
        for body in bodies
    ]


def _encode_binary(received_us: int, connection: int, body: bytes) -> bytes:
    rest = b"%d B %d %b" % (received_us, connection, base64.b64encode(body))
    return b"%08x %b\n" % (crc32(rest), rest)


def encode(record: Record, *, number: int | None = None) -> bytes:
    """The line of a record, with its line feed; empty if it is not journaled. `number`: written in
    place of the connection.
    """
    if isinstance(record, Frame):
        return encode_frame(record)
    render = _ENCODERS.get(type(record))
    if render is None:
        return b""
    kind, body = render(record)
    if number is None:
        number = getattr(record, "connection", 0)
    rest = b"%d %b %d %b" % (record.received_us, kind, number, body)
    return b"%08x %b\n" % (crc32(rest), rest)


def verified(line: bytes) -> bytes | None:
    """The part of a line (without its line feed) after a valid checksum; else None."""
    rest = line[CHECKSUM_BYTES:]
    return rest if line[:CHECKSUM_BYTES] == b"%08x " % crc32(rest) else None


def payload_of(line: bytes, *, is_checked: bool) -> bytes | None:
    """The part of a line (without its line feed) for `decode_payload`; None: the line is damaged.
    If `is_checked`, a line without a checksum is damage, too.
    """
    payload = verified(line)
    if payload is None and not is_checked and _is_old(line):
        return line
    return payload


def decode(line: bytes) -> Record | None:
    """The record of a line (without its line feed), with a checksum or of an earlier version; None:
    it cannot be read.
    """
    payload = payload_of(line, is_checked=False)
    return decode_payload(payload) if payload is not None else None


def frame_of(line: bytes) -> Frame | None:
    """The frame of a line (without its line feed) that has a checksum, the usual case in one step.
    None: it is another line, or damaged.
    """
    rest = line[CHECKSUM_BYTES:]
    parts = rest.split(b" ", 3)
    if len(parts) != 4 or parts[1] != b"F" or line[:CHECKSUM_BYTES] != b"%08x " % crc32(rest):
        return None
    received_us, _, number, body = parts
    # `_is_number` of both, inlined
    if not (received_us.isdigit() and number.isdigit()):
        return None
    if len(received_us) > MAX_DIGITS or len(number) > MAX_DIGITS:
        return None
    return _tuple(Frame, (int(received_us), int(number), body))


def decode_payload(rest: bytes) -> Record | None:
    """The record of a payload, see `payload_of`; None: it cannot be read."""
    parts = rest.split(b" ", 3)
    if len(parts) != 4 or not (_is_number(parts[0]) and _is_number(parts[2])):
        return None
    received_us, number, body = int(parts[0]), int(parts[2]), parts[3]
    if parts[1] == b"F":
        return Frame(received_us, number, body)
    read = _DECODERS.get(parts[1])
    if read is None:
        return None
    try:
        return read(received_us, number, body)
    except DAMAGE:
        return None


def number_of(rest: bytes) -> int:
    """The number in place of the connection, in a valid payload."""
    return int(rest.split(b" ", 3)[2])


def letter_of(line: bytes) -> bytes:
    """The letter of the kind of a line made by `encode`."""
    return line[CHECKSUM_BYTES:].split(b" ", 2)[1]


def name_of(letter: str) -> str:
    """The name of a kind of line in exports and summaries."""
    return _NAMES[letter]


def _is_old(line: bytes) -> bool:
    """Whether a line begins with a whole time, as in earlier versions; else the end of another line
    might be mistaken for one.
    """
    return line[:MAX_DIGITS].isdigit() and line[MAX_DIGITS : MAX_DIGITS + 1] == b" "


def _is_number(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) <= MAX_DIGITS


# ---- bodies: from a record -------------------------------------------------------------------


def _json(facts: object) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode()


def _opened(record: Opened) -> tuple[bytes, bytes]:
    return b"O", _json({"name": record.name, "streams": list(record.streams)})


def _subscribed(record: Subscribed) -> tuple[bytes, bytes]:
    return b"C", _json({"streams": list(record.streams)})


def _answered(record: Answered) -> tuple[bytes, bytes]:
    parts = [str(record.at_us), *record.excluded]
    if record.is_inferred:
        parts.append(f"{UNTIL}0")
    elif record.pinged_us is not None:
        parts.append(f"{UNTIL}{record.pinged_us}")
    return b"A", " ".join(parts).encode(errors="surrogatepass")


def _suspected(record: Suspected) -> tuple[bytes, bytes]:
    return b"D", _json({"stream": record.stream, "since_us": record.last_us or 0})


def _lost(record: Lost) -> tuple[bytes, bytes]:
    return b"L", _json({"cause": record.cause})


def _rest_body(record: RestBody) -> tuple[bytes, bytes]:
    about = f"{record.stream}/{record.kind}" if record.kind else record.stream
    text = record.body.replace(b"\n", b" ")  # in JSON line feeds are only white space
    return b"R", about.encode(errors="surrogatepass") + b" " + text


def _watermarks(record: Watermarks) -> tuple[bytes, bytes]:
    return b"H", _json(dict(record.marks))


def _started(_: Started) -> tuple[bytes, bytes]:
    return b"P", b""


def _gap_logged(record: GapLogged) -> tuple[bytes, bytes]:
    return b"G", _json(dict(record.fields))


def _state(record: SegmentState) -> tuple[bytes, bytes]:
    facts = {
        "connections": {str(number): dict(of) for number, of in record.connections.items()},
        "coverage": record.coverage,
        "sparse": list(record.sparse),
    }
    return b"S", _json(facts)


def _missing(record: Missing) -> tuple[bytes, bytes]:
    spans: Mapping[str, tuple[int, int]] = record.spans or {}
    if record.spans is None:
        spans = {EVERY_STREAM: (record.from_us, record.received_us)}
    cause = b"" if record.cause is GapCause.NOT_IN_JOURNAL else record.cause.encode() + b" "
    return b"N", cause + _json(spans)


_ENCODERS: dict[type, Callable[[Any], tuple[bytes, bytes]]] = {
    Opened: _opened,
    Subscribed: _subscribed,
    Answered: _answered,
    Suspected: _suspected,
    Lost: _lost,
    RestBody: _rest_body,
    Watermarks: _watermarks,
    Started: _started,
    GapLogged: _gap_logged,
    SegmentState: _state,
    Missing: _missing,
}


# ---- bodies: to a record; each may raise the exceptions in DAMAGE --------------------------------


def _read_binary(received_us: int, number: int, body: bytes) -> Record:
    try:
        return Frame(received_us, number, base64.b64decode(body, validate=True))
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _read_opened(received_us: int, number: int, body: bytes) -> Record:
    facts = _object(body)
    return Opened(received_us, number, str(facts.get("name", "")), _names(facts["streams"]))


def _read_subscribed(received_us: int, number: int, body: bytes) -> Record:
    return Subscribed(received_us, number, _names(_object(body)["streams"]))


def _read_answered(received_us: int, number: int, body: bytes) -> Record:
    # the earliest versions wrote no time
    at_us, *parts = body.decode(errors="surrogatepass").split(" ") if body else [str(received_us)]
    pinged_us = None
    for part in parts:
        if part.startswith(UNTIL):
            pinged_us = int(part.removeprefix(UNTIL))
    excluded = tuple(part for part in parts if not part.startswith(UNTIL))
    is_inferred = pinged_us == 0
    return Answered(
        received_us, number, int(at_us), excluded, None if is_inferred else pinged_us, is_inferred
    )


def _read_suspected(received_us: int, number: int, body: bytes) -> Record:
    facts = _object(body)
    return Suspected(received_us, number, _name(facts["stream"]), int(facts["since_us"]) or None)


def _read_connection_lost(received_us: int, number: int, body: bytes) -> Record:
    return Lost(received_us, number, _cause(_object(body).get("cause", "")))


def _read_rest_body(received_us: int, _: int, body: bytes) -> Record:
    about, _space, text = body.partition(b" ")
    stream, _slash, kind = about.decode(errors="surrogatepass").partition("/")
    return RestBody(received_us, stream, BodyKind(kind), text)


def _read_watermarks(received_us: int, _: int, body: bytes) -> Record:
    return Watermarks(received_us, {name: int(us) for name, us in _object(body).items()})


def _read_started(received_us: int, _: int, _body: bytes) -> Record:
    return Started(received_us)


def _read_gap_logged(received_us: int, _: int, body: bytes) -> Record:
    return GapLogged(
        received_us, {_name(name): _name(text) for name, text in _object(body).items()}
    )


def _read_state(received_us: int, _: int, body: bytes) -> Record:
    facts = _object(body)
    connections = {
        int(number): {name: int(since_us) for name, since_us in streams.items()}
        for number, streams in (facts.get("connections") or {}).items()
    }
    # `deafness`: the key in journals of earlier versions
    coverage = facts.get("coverage", facts.get("deafness")) or {}
    if not isinstance(coverage, dict):
        raise TypeError("no object")
    return SegmentState(received_us, connections, coverage, _names(facts.get("sparse", ())))


def _read_missing(received_us: int, _: int, body: bytes) -> Record:
    head, brace, _rest = body.partition(b"{")
    cause = _cause(head.decode().rstrip()) if head else GapCause.NOT_IN_JOURNAL
    facts = _object(body[len(head) :] if brace else b"")
    spans = {name: (int(from_us), int(to_us)) for name, (from_us, to_us) in facts.items()}
    if EVERY_STREAM in spans:
        return Missing(received_us, cause, None, spans[EVERY_STREAM][0])
    return Missing(received_us, cause, spans)


_DECODERS: dict[bytes, Callable[[int, int, bytes], Record]] = {
    b"B": _read_binary,
    b"O": _read_opened,
    b"C": _read_subscribed,
    b"A": _read_answered,
    b"D": _read_suspected,
    b"L": _read_connection_lost,
    b"R": _read_rest_body,
    b"H": _read_watermarks,
    b"P": _read_started,
    b"G": _read_gap_logged,
    b"S": _read_state,
    b"N": _read_missing,
}


def _object(body: bytes) -> dict[str, Any]:
    facts = parsed(body)
    if not isinstance(facts, dict):
        raise TypeError("no object")
    return facts


def _names(names: Sequence[Any]) -> tuple[str, ...]:
    if not isinstance(names, list | tuple):
        raise TypeError("no list")
    return tuple(map(_name, names))


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("no name")
    return name


def _cause(text: str) -> GapCause:
    if text in _OLD_CAUSES:
        return _OLD_CAUSES[text]
    try:
        return GapCause(text)
    except ValueError:
        return GapCause.CONNECTION_LOST
