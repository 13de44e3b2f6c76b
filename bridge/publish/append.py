"""The append script: packing calls of it, reading its answers (pure, but for loading the file)."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

import hiredis

from bridge.pipeline.items import Answer, Item
from bridge.publish.wire import Reply

SCRIPT = files("bridge.publish").joinpath("append.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()


def pack_append(key: bytes, max_entries: bytes, max_age_ms: bytes, items: Sequence[Item]) -> bytes:
    """One EVALSHA that appends `items` to `key`, trimming to the limits (empty: none)."""
    count = 6 + sum(5 + 2 * len(item.names) for item in items)
    head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n1\r\n" % (count, SHA)
    head += b"$%d\r\n%b\r\n" * 3 % (
        len(key), key, len(max_entries), max_entries, len(max_age_ms), max_age_ms,
    )  # fmt: skip
    return head + b"".join([_pack_item(item) for item in items])


def _pack_item(item: Item) -> bytes:
    position, ms = str(item.position), str(item.ms)
    text = _template(item.op, item.names) % (
        len(item.expected), item.expected, len(position), position, len(ms), ms,
        *[part for value in item.values for part in (len(value), value)],
    )  # fmt: skip
    if text.isascii():
        return text.encode()
    return _pack_wide(item)


def _pack_wide(item: Item) -> bytes:
    """The same where a value is not ASCII: lengths are in bytes."""
    arguments = [item.op, item.expected, str(item.position), str(item.ms), str(2 * len(item.names))]
    for name, value in zip(item.names, item.values, strict=True):
        arguments += [name, value]
    encoded = [argument.encode(errors="backslashreplace") for argument in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(data), data) for data in encoded])


@lru_cache(maxsize=256)
def _template(op: str, names: tuple[str, ...]) -> str:
    """Everything of an item's arguments that never changes for its type."""
    count = str(2 * len(names))
    fields = "".join(f"${len(name)}\r\n{name}\r\n$%d\r\n%s\r\n" for name in names)
    return f"$1\r\n{op}\r\n" + "$%d\r\n%s\r\n" * 3 + f"${len(count)}\r\n{count}\r\n" + fields


def read_answer(reply: Reply) -> Answer | hiredis.ReplyError:
    """The script's reply as it is meant, or the error Redis answered with."""
    if isinstance(reply, hiredis.ReplyError):
        return reply
    if isinstance(reply, list) and len(reply) == 4:
        status, settled, last, signs = reply
        return Answer(status.decode(), settled, last.decode(), signs.decode())
    return hiredis.ReplyError(f"ERR unexpected reply of the append script: {reply!r:.100}")
