"""The append script: packing calls of it, reading its answers (pure, but for loading the file)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import cast

import hiredis

from bridge.pipeline.items import Answer, Item
from bridge.publish.wire import Reply

# in C; its type hints know one argument only
_pack = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", hiredis.pack_command)

SCRIPT = files("bridge.publish").joinpath("append.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Limits:
    """A stream's retention, as the append script takes it (empty: no limit)."""

    max_entries: bytes = b""
    max_age_ms: bytes = b""


def pack_append(key: bytes, max_entries: bytes, max_age_ms: bytes, items: Sequence[Item]) -> bytes:
    """One EVALSHA that appends `items` to `key`, trimming to the limits (empty: none)."""
    shapes: dict[tuple[str, ...], int] = {}
    entries: list[str | int] = []
    for item in items:
        shape = shapes.setdefault(item.names, len(shapes) + 1)
        entries += (item.op, item.expected, item.position, item.ms, shape)
        entries += item.values
    head: list[bytes | str | int] = [
        *(b"EVALSHA", SHA, b"1", key, max_entries, max_age_ms, len(shapes))
    ]
    for names in shapes:
        head += (len(names), *names)
    try:
        return _pack((*head, *entries))
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can say and UTF-8 cannot
        return _pack((*head, *map(_spelled_out, entries)))


def _spelled_out(argument: str | int) -> bytes | int:
    if isinstance(argument, str):
        return argument.encode(errors="backslashreplace")
    return argument


def read_answer(reply: Reply) -> Answer | hiredis.ReplyError:
    """The script's reply as it is meant, or the error Redis answered with."""
    if isinstance(reply, hiredis.ReplyError):
        return reply
    if isinstance(reply, list) and len(reply) == 4:
        status, settled, last, signs = reply
        return Answer(status.decode(), settled, last.decode(), signs.decode())
    return hiredis.ReplyError(f"ERR unexpected reply of the append script: {reply!r:.100}")
