"""The append script: packing calls of it, reading its answers (pure, but for loading the file)."""

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
    """How much of a stream is kept, as the append script takes it (empty: no limit)."""

    max_entries: str = ""
    max_age_ms: str = ""


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept of each stream, by its type or, of the bridge's own, by name.

    Streams of the exchange are not limited where trimming waits for slow groups: it is not the
    append script's task then.
    """

    by_type: Mapping[str, Limits] = field(default_factory=dict)
    waits_for_groups: bool = False

    def of(self, stream: Stream) -> Limits:
        """What the append script trims to."""
        own = _OWN.get(stream.name)
        if self.waits_for_groups and own is None:
            return UNLIMITED
        return self.kept(stream)

    def kept(self, stream: Stream) -> Limits:
        """What is kept, whether the script trims or not."""
        return self.by_type.get(_OWN.get(stream.name, stream.type.value), UNLIMITED)


def pack(*arguments: bytes | str | int) -> bytes:
    """One command in the Redis protocol."""
    return _pack(arguments)


class Part(NamedTuple):
    """What one call of the append script does to one stream."""

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
    # of several, there are too many sets to remember
    head = _head if len(parts) == 1 else _head.__wrapped__
    count, packed = head(tuple([part.key for part in parts]), *shapes)
    return b"*%d%b%b\r\n" % (count + len(entries), packed, _packed(entries))


def _put_together(entries: list[str], batch: Batch, shapes: dict[tuple[str, ...], str]) -> None:
    """Several entries: each has the number of its shape, and its values."""
    shape, names_before = "", None
    expected = batch.expected
    for slot in batch.slots:
        op, names, values, number, _, ms, _, _, _, wanted, _, _ = slot.entry
        if names is not names_before:
            shape, names_before = shapes.setdefault(names, str(len(shapes) + 1)), names
        if op is APPEND:
            wanted = str(slot.after)
        elif op is CONTENT:
            # only the first of a batch can tell that another program wrote meanwhile
            wanted, expected = expected, ""
        entries += (op, wanted, str(number), str(ms), shape)
        entries += values


def _put_alone(entries: list[str], batch: Batch) -> None:
    """One entry: how many arguments its fields are, and names and values in turn."""
    slot = batch.slots[0]
    op, names, values, number, _, ms, _, _, _, wanted, _, _ = slot.entry
    if op is APPEND:
        wanted = str(slot.after)
    elif op is CONTENT:
        wanted = batch.expected
    fields = [""] * (2 * len(names))
    fields[::2], fields[1::2] = names, values
    entries += (op, wanted, str(number), str(ms), "0", str(len(fields)))
    entries += fields


@lru_cache(maxsize=8_192)  # a stream has one, or a few
def _head(keys: tuple[bytes, ...], *shapes: tuple[str, ...]) -> tuple[int, bytes]:
    """How many arguments stand before the entries, and these."""
    head: list[bytes | str | int] = [b"EVALSHA", SHA, len(keys), *keys, len(shapes)]
    for names in shapes:
        head += (len(names), *names)
    return len(head), _without_count(_pack((*head,)))


def _without_count(packed: bytes) -> bytes:
    """A packed command as `_packed` has one: without its first line, and its last line end."""
    return packed[packed.index(b"\r\n") : -2]


class _Lengths(dict[int, str]):
    """What stands between an argument and one behind it of so many bytes."""

    def __missing__(self, length: int) -> str:
        return f"\r\n${length}\r\n"


_BETWEEN = _Lengths({length: f"\r\n${length}\r\n" for length in range(1_000)})


def _packed(arguments: Sequence[str]) -> bytes:
    """Arguments of a command in the Redis protocol, each behind a line end.

    Put together by slices: it is the half of what publishing a message costs, and hiredis takes
    half as long again.
    """
    pieces = [""] * (2 * len(arguments))
    pieces[::2] = map(_BETWEEN.__getitem__, map(len, arguments))
    pieces[1::2] = arguments
    text = "".join(pieces)
    if text.isascii():
        return text.encode()
    return _without_count(_pack((*map(_spelled_out, arguments),)))


def pack_probe(keys: Sequence[bytes]) -> bytes:
    """One EVALSHA without entries: does Redis refuse one of these streams, or has it lost its end?
    The answers' last ID is that of the newest entry.
    """
    return _pack((b"EVALSHA", SHA, len(keys), *keys, 0, *(b"", b"", 0) * len(keys)))


def _spelled_out(argument: str) -> bytes:
    """With half a surrogate pair, which JSON can say and UTF-8 cannot, as text."""
    return argument.encode(errors="backslashreplace")


def read_answers(reply: Reply, count: int) -> Sequence[Answer | hiredis.ReplyError]:
    """The script's reply as it is meant, for each of so many streams: an answer, or the error with
    which Redis refuses it. An error reply is every stream's.
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
