"""Names of the keys in Redis that the kit reads and writes (pure).

A group's keys for a stream contain the stream's full key in braces as a hash tag, so that a script
can use both in one Cluster slot: `consumers:{trade.SOL_USDC}:candles:lease`. If the key prefix has
a hash tag itself, all keys are in its slot, without further braces:
`{mine}:consumers:trade.SOL_USDC:…`. With several shards each shard has a prefix of its own, and a
group's keys have the prefix of their stream.
"""

import re
from dataclasses import dataclass

from bridge.runtime.keyspace import PLAIN, KeySpace
from bridge.runtime.redis_url import tag_of


@dataclass(frozen=True, slots=True)
class Keys:
    """The key names in one bridge's Redis."""

    space: KeySpace = PLAIN

    def of(self, shard: int) -> "Keys":
        """The key names in one shard: every stream is assumed to be there."""
        return Keys(self.space.of(shard))

    @property
    def registry(self) -> str:
        """Hash written by the bridge: stream name → JSON about it."""
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
        """A key of a group for a stream, in the stream's slot."""
        prefix = self.space.prefix_of(self.space.shard_of(stream))
        named = stream if tag_of(prefix) else f"{{{prefix}{stream}}}"
        whole = f"{prefix}consumers:{named}:{group}"
        return f"{whole}:{part}" if part else whole

    def all_beside(self, group: str) -> list[str]:
        """Patterns for SCAN, one per shard: the keys of all groups whose name begins with
        `group`."""
        prefixes = [self.space.prefix_of(shard) for shard in range(self.space.shards)]
        named = "*" if tag_of(prefixes[0]) else "{*}"
        return [f"{_literal(one)}consumers:{named}:{_literal(group)}*" for one in prefixes]

    def lease(self, stream: str, group: str) -> str:
        """String: `<worker>/<nonce> <fencing token>` of a stream's owner in ordered mode."""
        return self.beside(stream, group, "lease")

    def position(self, stream: str, group: str) -> str:
        """Hash: the progress of an ordered group."""
        return self.beside(stream, group, "position")

    def settled(self, stream: str, group: str) -> str:
        """Hash: the position up to which a shared group has settled all entries."""
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
    """The text escaped for a glob pattern, so that it matches only itself."""
    return re.sub(r"[*?\[\]\\]", r"\\\g<0>", text)
