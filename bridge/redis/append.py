"""Packs calls of the append script, and reads its replies (pure, except for loading the file)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple, cast

import hiredis

from bridge.contract.stream_types import OWN_STREAMS
from bridge.contract.streams import Stream
from bridge.core.entries import APPEND, CONTENT, Answer
from bridge.core.queue import Batch

Reply = object  # bytes, int, list, None or hiredis.ReplyError

# in C; its type hints know one argument only
_pack = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", hiredis.pack_command)

SCRIPT = files("bridge.redis").joinpath("append.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()

_OWN = {own.key: own.name for own in OWN_STREAMS}


@dataclass(frozen=True, slots=True)
class Limits:
    """A stream's retention, as arguments of the append script (empty: no limit)."""

    max_entries: str = ""
    max_age_ms: str = ""


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


class Part(NamedTuple):
    """The part of one stream in a call of the append script."""

    key: bytes
    limits: Limits
    batch: Batch


def pack_append(parts: Sequence[Part]) -> bytes:
    """One EVALSHA that appends to several streams, trimming each to its limits."""
    shapes: dict[tuple[str, ...], str] = {}
    entries: list[str] = []
    for _, limits, batch in parts:
        entries += (limits.max_entries, limits.max_age_ms, "")
        first = len(entries)
        if len(batch.slots) == 1:
            _put_alone(entries, batch)
        else:
            _put_together(entries, batch, shapes)
        entries[first - 1] = str(len(entries) - first)
    # heads of several streams are not cached: there are too many sets
    head = _head if len(parts) == 1 else _head.__wrapped__
    count, packed = head(tuple([part.key for part in parts]), *shapes)
    return b"*%d%b%b\r\n" % (count + len(entries), packed, _packed(entries))


def _put_together(entries: list[str], batch: Batch, shapes: dict[tuple[str, ...], str]) -> None:
    """Add several entries: each has the number of its shape, and its values."""
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
        entries += (op, required, str(number), str(ms), shape)
        entries += values


def _put_alone(entries: list[str], batch: Batch) -> None:
    """Add a single entry: the number of arguments of its fields, then names and values in turn."""
    slot = batch.slots[0]
    op, names, values, number, _, ms, _, _, _, required, _, _ = slot.entry
    if op is APPEND:
        required = str(slot.after)
    elif op is CONTENT:
        required = batch.expected
    fields = [""] * (2 * len(names))
    fields[::2], fields[1::2] = names, values
    entries += (op, required, str(number), str(ms), "0", str(len(fields)))
    entries += fields


@lru_cache(maxsize=8_192)  # a stream has one, or a few
def _head(keys: tuple[bytes, ...], *shapes: tuple[str, ...]) -> tuple[int, bytes]:
    """The number of arguments before the entries, and these."""
    head: list[bytes | str | int] = [b"EVALSHA", SHA, len(keys), *keys, len(shapes)]
    for names in shapes:
        head += (len(names), *names)
    return len(head), _without_count(_pack((*head,)))


def _without_count(packed: bytes) -> bytes:
    """A packed command in the form of `_packed`: without its first line and last line end."""
    return packed[packed.index(b"\r\n") : -2]


class _Lengths(dict[int, str]):
    """Argument length → the text between the previous argument and that argument."""

    def __missing__(self, length: int) -> str:
        return f"\r\n${length}\r\n"


_BETWEEN = _Lengths({length: f"\r\n${length}\r\n" for length in range(1_000)})


def _packed(arguments: Sequence[str]) -> bytes:
    """Arguments of a command in the Redis protocol, each after a line end.

    Assembled by slices, for speed: it is half of the cost of publishing a message, and hiredis
    takes half as long again.
    """
    pieces = [""] * (2 * len(arguments))
    pieces[::2] = map(_BETWEEN.__getitem__, map(len, arguments))
    pieces[1::2] = arguments
    text = "".join(pieces)
    if text.isascii():
        return text.encode()
    return _without_count(_pack((*map(_spelled_out, arguments),)))


def pack_probe(keys: Sequence[bytes]) -> bytes:
    """One EVALSHA without entries, to check whether Redis refuses one of these streams or has lost
    its end. The last ID in an answer is that of the newest entry.
    """
    return _pack((b"EVALSHA", SHA, len(keys), *keys, 0, *(b"", b"", 0) * len(keys)))


def _spelled_out(argument: str) -> bytes:
    """The argument in UTF-8; half a surrogate pair, possible in JSON only, becomes an escape."""
    return argument.encode(errors="backslashreplace")


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
