"""Maps names to Redis keys and shards: the one place that knows (pure).

With one shard, the default, a key is `redis.key_prefix` and the name. With several
(`redis.shards`, of a Cluster) the shard's number is part of the prefix's hash tag, so that all
keys of a shard share a slot, and the shards are spread over the nodes:

    {bridge.3}:trade.SOL_USDC       the shard of a pair: CRC16 of SOL_USDC, modulo `shards`
    {bridge.3}:trade.SOL_USDC_PERP  its perpetual is beside it, so that both can be joined
    {bridge.0}:bridge:status        the shard of all keys that belong to no market

So all streams of a market, and the keys of their consumers, are in one slot.
"""

from dataclasses import dataclass
from functools import lru_cache

from bridge.contract.streams import stream_named
from bridge.runtime.redis_url import crc16, of_shard, tag_of

MAX_SHARDS = 64
_PERPETUAL = "_PERP"  # suffix of the pair in the symbol of its perpetual


@dataclass(frozen=True, slots=True)
class KeySpace:
    """The names of all keys of one bridge and its consumers."""

    prefix: str = ""
    shards: int = 1

    def shard_of(self, name: str) -> int:
        """The shard of a stream or key, by its name; keys without a market are in shard 0."""
        return 0 if self.shards == 1 else _shard_of(name, self.shards)

    def prefix_of(self, shard: int) -> str:
        """The key prefix of a shard."""
        if self.shards == 1:
            return self.prefix
        tag = tag_of(self.prefix)
        return self.prefix.replace(f"{{{tag}}}", f"{{{of_shard(tag, shard)}}}", 1)

    def key(self, name: str) -> str:
        """The key of a stream, or of any other name."""
        return self.prefix_of(self.shard_of(name)) + name

    def name(self, key: str) -> str:
        """The name part of a key."""
        if self.shards == 1:
            return key[len(self.prefix) :]
        behind_tag = len(self.prefix) - self.prefix.index("}")
        return key[key.index("}") + behind_tag :]

    def of(self, shard: int) -> "KeySpace":
        """A key space of one shard alone, which takes every name to be in it."""
        return KeySpace(self.prefix_of(shard))


PLAIN = KeySpace()  # names are keys


def stream_beside(name: str) -> str:
    """The stream, or the joined streams' name, that a key of the consumer kit belongs to; empty for
    any other key.
    """
    head, _, rest = name.partition(":")
    return rest.partition(":")[0] if head == "consumers" else ""


@lru_cache(maxsize=65_536)
def _shard_of(name: str, shards: int) -> int:
    stream = stream_named(stream_beside(name) or name)
    if stream is None or not stream.symbol:
        return 0
    return crc16(stream.symbol.removesuffix(_PERPETUAL)) % shards
