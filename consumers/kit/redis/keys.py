"""Names of the keys in Redis that the kit reads and writes (pure).

What a script touches beside a stream carries the stream's full key in braces, so that both live in
one slot of a Cluster: `consumers:{trade.SOL_USDC}:candles:lease`. Where the prefix has braces of
its own, all keys live in its slot, and there are no others: `{mine}:consumers:trade.SOL_USDC:…`. Of
several shards each has a prefix of its own, and what is beside a stream has that of the stream.
"""

import re
from dataclasses import dataclass

from bridge.runtime.keyspace import PLAIN, KeySpace
from bridge.runtime.redis_url import tag_of


@dataclass(frozen=True, slots=True)
class Keys:
    """All key names of one bridge's Redis."""

    space: KeySpace = PLAIN

    def of(self, shard: int) -> "Keys":
        """Those of one shard: every name is taken to be in it."""
        return Keys(self.space.of(shard))

    @property
    def registry(self) -> str:
        """Hash of the bridge: stream name → JSON about it."""
        return self.space.key("bridge:streams")

    @property
    def status(self) -> str:
        """Hash `<group>/<consumer>` → JSON of that worker."""
        return self.space.key("consumers:status")

    @property
    def groups(self) -> str:
        """Hash: group → JSON about it: `mode`, `streams` (patterns)."""
        return self.space.key("consumers:groups")

    def workers(self, group: str) -> str:
        """Sorted set: names of a group's workers by the time of their last heartbeat, ms."""
        return self.space.key(f"consumers:workers:{group}")

    def stream(self, name: str) -> str:
        """The key of a stream of the exchange."""
        return self.space.key(name)

    def beside(self, stream: str, group: str, part: str = "") -> str:
        """A key of a group that lives in the stream's slot."""
        prefix = self.space.prefix_of(self.space.shard_of(stream))
        named = stream if tag_of(prefix) else f"{{{prefix}{stream}}}"
        whole = f"{prefix}consumers:{named}:{group}"
        return f"{whole}:{part}" if part else whole

    def all_beside(self, group: str) -> list[str]:
        """Patterns for SCAN, one a shard: a group's keys, and those of names that begin so."""
        prefixes = [self.space.prefix_of(shard) for shard in range(self.space.shards)]
        named = "*" if tag_of(prefixes[0]) else "{*}"
        return [f"{_literal(one)}consumers:{named}:{_literal(group)}*" for one in prefixes]

    def lease(self, stream: str, group: str) -> str:
        """String: `<worker>/<nonce> <fencing token>` of a stream's owner in ordered mode."""
        return self.beside(stream, group, "lease")

    def position(self, stream: str, group: str) -> str:
        """Hash: how far an ordered group has come."""
        return self.beside(stream, group, "position")

    def settled(self, stream: str, group: str) -> str:
        """Hash: how far a shared group has settled everything."""
        return self.beside(stream, group, "settled")

    def dead(self, stream: str, group: str) -> str:
        """Stream: dead letters."""
        return self.beside(stream, group, "dead")

    def again(self, stream: str, group: str) -> str:
        """Stream: dead letters that were sent back, to be handled again."""
        return self.beside(stream, group, "again")

    def name(self, key: str) -> str:
        """The stream's name, from its key."""
        return self.space.name(key)


def _literal(text: str) -> str:
    """As a part of a glob pattern that fits nothing else."""
    return re.sub(r"[*?\[\]\\]", r"\\\g<0>", text)
