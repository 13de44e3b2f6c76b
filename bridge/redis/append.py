"""Packs calls of the append script, and reads its replies (pure, except for loading the file)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from operator import getitem
from typing import NamedTuple, cast

import hiredis

from bridge.contract.stream_types import OWN_STREAMS
from bridge.contract.streams import Stream
from bridge.core.entries import APPEND, CONTENT, Answer, Op
from bridge.core.queue import Batch

Reply = object  # bytes, int, list, None or hiredis.ReplyError

# in C; its type hints know one argument only
_pack = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", hiredis.pack_command)

SCRIPT = files("bridge.redis").joinpath("append.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()

_OWN = {own.key: own.name for own in OWN_STREAMS}

OF_PART = 3  # arguments of a stream before its entries: two limits, how many arguments follow
OF_ENTRY = 6  # arguments of a single entry before its fields
MOST_LENGTHS = 1_000  # texts for longer arguments are not cached


@dataclass(frozen=True, slots=True)
class Limits:
    """A stream's retention, as arguments of the append script (empty: no limit)."""

    max_entries: str = ""
    max_age_ms: str = ""
    single_entries: dict[tuple[str, ...], "_SingleEntry"] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )  # a cache, by the names of an entry's fields


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Retention:
    """The retention of each stream, by its type or, for the bridge's own streams, by name.

    If trimming waits for slow groups, the append script does not limit streams of the exchange:
    `Trimming` does.
    """

    by_type: Mapping[str, Limits] = field(default_factory=dict)
    waits_for_groups: bool = False

    def of(self, stream: Stream) -> Limits:
        """The limits for the append script."""
        own = _OWN.get(stream.name)
        if self.waits_for_groups and own is None:
            return UNLIMITED
        return self.kept(stream)

    def kept(self, stream: Stream) -> Limits:
        """The limits of a stream, whether the script trims or not."""
        return self.by_type.get(_OWN.get(stream.name, stream.type.value), UNLIMITED)


def pack(*arguments: bytes | str | int) -> bytes:
    """One command in the Redis protocol."""
    return _pack(arguments)


# The part of one stream in a call of the append script: its key, its retention, the entries.
Part = tuple[bytes, Limits, Batch]


def pack_append(parts: Sequence[Part]) -> bytes:
    """One EVALSHA that appends to several streams, trimming each to its limits."""
    packed, text = _put(parts)
    if text.isascii():
        return b"".join((packed, text.encode(), b"\r\n"))
    # Lengths are counted in bytes: the same again, with one character for each byte.
    packed, text = _put([(key, limits, _spelled_out(batch)) for key, limits, batch in parts])
    return b"".join((packed, text.encode("latin-1"), b"\r\n"))


def _put(parts: Sequence[Part]) -> tuple[bytes, str]:
    """The head of the call, up to its keys and shapes, and the text of its entries."""
    shapes: dict[tuple[str, ...], str] = {}
    pieces: list[str] = []
    arguments = 0
    for _, limits, batch in parts:
        put = _put_single if len(batch.slots) == 1 else _put_together
        arguments += put(pieces, limits, batch, shapes)
    # heads of several streams are not cached: there are too many sets
    head = _head if len(parts) == 1 else _head.__wrapped__
    count, packed = head(tuple([key for key, _, _ in parts]), *shapes)
    return b"*%d%b" % (count + arguments, packed), "".join(pieces)


def _put_together(
    pieces: list[str], limits: Limits, batch: Batch, shapes: dict[tuple[str, ...], str]
) -> int:
    """Add several entries: each has the number of its shape, and its values. Returns the number of
    arguments.
    """
    arguments = [limits.max_entries, limits.max_age_ms, ""]
    shape, names_before = "", None
    expected = batch.expected
    for slot in batch.slots:
        op, names, values, number, _, ms, _, _, _, required, _, _ = slot.entry
        if names is not names_before:
            shape, names_before = shapes.setdefault(names, str(len(shapes) + 1)), names
        if op is APPEND:
            required = str(slot.after)
        elif op is CONTENT:
            # only the first of a batch is compared: after it the last ID is that of this batch
            required, expected = expected, ""
        arguments += (op, required, str(number), str(ms), shape)
        arguments += values
    arguments[OF_PART - 1] = str(len(arguments) - OF_PART)
    framed = [""] * (2 * len(arguments))
    framed[::2] = map(_BETWEEN.__getitem__, map(len, arguments))
    framed[1::2] = arguments
    pieces += framed
    return len(arguments)


def _put_single(pieces: list[str], limits: Limits, batch: Batch, _: object) -> int:
    """Add a single entry: the number of arguments of its fields, then names and values in turn.
    Everything that is constant for its shape is cached as text. Returns the number of arguments.
    """
    slot = batch.slots[0]
    op, names, values, number, _, ms, _, _, _, required, _, _ = slot.entry
    if op is APPEND:
        required = str(slot.after)
    elif op is CONTENT:
        required = batch.expected
    known = limits.single_entries.get(names)
    if known is None or known.op is not op:
        known = limits.single_entries[names] = _SingleEntry.of(limits, op, names)
    number_text, ms_text = str(number), str(ms)
    pieces += (
        known.before, _BETWEEN[len(required)], required, _BETWEEN[len(number_text)], number_text,
        _BETWEEN[len(ms_text)], ms_text, known.behind,
    )  # fmt: skip
    framed = [""] * (2 * len(values))
    framed[::2] = map(getitem, known.names, map(len, values))
    framed[1::2] = values
    pieces += framed
    return known.arguments


class _Lengths(dict[int, str]):
    """Length of an argument → the text between the argument before and this one, with constant
    arguments in between.
    """

    def __init__(self, constants: str = "") -> None:
        super().__init__()
        self._constants = constants

    def __missing__(self, length: int) -> str:
        between = f"{self._constants}\r\n${length}\r\n"
        if length < MOST_LENGTHS:
            self[length] = between
        return between


_BETWEEN = _Lengths()


class _SingleEntry(NamedTuple):
    """The constant text of a call with a single entry, by retention and shape: `before` its place
    (the required ID, number and time), `behind` that, and between its values. `arguments`: their
    number.
    """

    op: Op
    before: str
    behind: str
    names: Sequence[_Lengths]
    arguments: int

    @classmethod
    def of(cls, limits: Limits, op: Op, names: Sequence[str]) -> "_SingleEntry":
        fields = 2 * len(names)
        entry = OF_ENTRY + fields
        before = _framed(limits.max_entries, limits.max_age_ms, str(entry), op)
        lengths = [_Lengths(_framed(name)) for name in names]
        return cls(op, before, _framed("0", str(fields)), lengths, OF_PART + entry)


def _framed(*arguments: str) -> str:
    """ASCII arguments in the Redis protocol, each after a line end."""
    return "".join([f"\r\n${len(argument)}\r\n{argument}" for argument in arguments])


def _spelled_out(batch: Batch) -> Batch:
    """The batch with one character for each UTF-8 byte of its values; half a surrogate pair, which
    is possible in JSON only, becomes an escape.
    """
    slots = []
    for slot in batch.slots:
        values = [value.encode(errors="backslashreplace") for value in slot.entry.values]
        spelled_out = copy(slot)
        spelled_out.entry = slot.entry._replace(values=[each.decode("latin-1") for each in values])
        slots.append(spelled_out)
    return batch._replace(slots=slots)


@lru_cache(maxsize=8_192)  # a stream has one, or a few
def _head(keys: tuple[bytes, ...], *shapes: tuple[str, ...]) -> tuple[int, bytes]:
    """The number of arguments before the entries, and these."""
    head: list[bytes | str | int] = [b"EVALSHA", SHA, len(keys), *keys, len(shapes)]
    for names in shapes:
        head += (len(names), *names)
    return len(head), _without_count(_pack((*head,)))


def _without_count(packed: bytes) -> bytes:
    """A packed command as `pack_append` joins it: without its first line and last line end."""
    return packed[packed.index(b"\r\n") : -2]


def pack_probe(keys: Sequence[bytes]) -> bytes:
    """One EVALSHA without entries, to check whether Redis refuses one of these streams or has lost
    its end. The last ID in an answer is that of the newest entry.
    """
    return _pack((b"EVALSHA", SHA, len(keys), *keys, 0, *(b"", b"", 0) * len(keys)))


def read_answers(reply: Reply, count: int) -> Sequence[Answer | hiredis.ReplyError]:
    """The script's reply for each of `count` streams: an answer, or the error with which Redis
    refuses it. An error reply counts for every stream.
    """
    if isinstance(reply, hiredis.ReplyError):
        return [reply] * count
    if isinstance(reply, list) and len(reply) == count:
        return [_read_answer(answer) for answer in reply]
    return [_unexpected(reply)] * count


def _read_answer(answer: Reply) -> Answer | hiredis.ReplyError:
    if isinstance(answer, list) and len(answer) == 4:
        status, settled, last, signs = answer
        return Answer(status.decode(), settled, last.decode(), signs.decode())
    return answer if isinstance(answer, hiredis.ReplyError) else _unexpected(answer)


def _unexpected(reply: Reply) -> hiredis.ReplyError:
    return hiredis.ReplyError(f"ERR unexpected reply of the append script: {reply!r:.100}")
