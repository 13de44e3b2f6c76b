"""The bridge's keys in Redis besides the streams: registry, account, status.

bridge:streams   hash  stream name → {"type", "identity", "symbol", "private", "key"} as JSON; with
                       "retired_us" where the stream is not received any more
bridge:account   string: fingerprint of the public key whose private streams are published here
bridge:status    hash  instance → its status as JSON, each second
bridge:peers     hash  instance → its progress for its peers, as JSON, each second
bridge:watermarks hash stream → µs: everything that the exchange sent until then is in the stream
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from bridge.contract import keys
from bridge.contract.json_text import parsed
from bridge.contract.streams import BadStreamName, Stream, parse_stream
from bridge.errors import Fatal
from bridge.redis.append import Reply, pack


class OtherAccount(Fatal):
    """Another account's private streams are published under this prefix."""


def describe(stream: Stream, key: str, retired_us: int | None = None) -> str:
    """A stream's line in the registry, with its key in Redis; `retired_us`: when its receipt
    ended.
    """
    facts: dict[str, object] = {
        "type": stream.type.value,
        "identity": stream.identity.value,
        "symbol": stream.symbol,
        "private": stream.is_private,
        "key": key,
    }
    if retired_us is not None:
        facts["retired_us"] = retired_us
    return json.dumps(facts, separators=(",", ":"))


def described_at(line: str, key: str) -> str:
    """A line of the registry for another key; unchanged if no bridge wrote it."""
    try:
        facts = parsed(line)
    except ValueError:
        return line
    if not isinstance(facts, dict) or "type" not in facts:
        return line
    return json.dumps(facts | {"key": key}, separators=(",", ":"))


def read_registry(lines: Mapping[str, str]) -> dict[str, Stream]:
    """The streams that were received last, by name; lines that no bridge wrote are ignored."""
    streams: dict[str, Stream] = {}
    for name, line in lines.items():
        with suppress(BadStreamName, ValueError):
            facts = parsed(line)
            if isinstance(facts, dict) and "retired_us" not in facts:
                streams[name] = parse_stream(name)
    return streams


def pack_registration(prefix: str, streams: Iterable[Stream]) -> bytes:
    """One command that puts these streams into the registry."""
    fields = [
        part for stream in streams for part in (stream.name, describe(stream, prefix + stream.name))
    ]
    return pack("HSET", prefix + keys.STREAMS, *fields)


def pack_claim(prefix: str, fingerprint: str) -> bytes:
    """Two commands that claim the prefix for an account, and read its owner."""
    key = prefix + keys.ACCOUNT
    return pack("SET", key, fingerprint, "NX") + pack("GET", key)


def check_claim(replies: Sequence[Reply], prefix: str, fingerprint: str) -> None:
    """Check the replies to `pack_claim`. Raises OtherAccount if another account has the prefix."""
    owner = replies[1]
    if isinstance(owner, bytes) and owner.decode() != fingerprint:
        raise OtherAccount(
            f"private streams under this prefix ({prefix!r}) belong to the account with key "
            f"fingerprint {owner.decode()}, yours is {fingerprint}: give this bridge another "
            f"redis.key_prefix, or delete the key {prefix}{keys.ACCOUNT} if that account is gone"
        )
