"""Under which key something is in Redis, and in which shard: the one place that knows (pure).

With one shard, which is the default, a key is `redis.key_prefix` and the name. With more of them
(`redis.shards`, of a Cluster) the number of the shard stands in the prefix' hash tag, so that all
keys of a shard share a slot, and the shards are spread over the nodes:

    {bridge.3}:trade.SOL_USDC       the shard of a pair: CRC16 of SOL_USDC, modulo `shards`
    {bridge.3}:trade.SOL_USDC_PERP  its perpetual is beside it, so that both can be joined
    {bridge.0}:bridge:status        the shard of all that belongs to no market

So all streams of a market, and what consumers keep beside them, are in one slot.
"""

from dataclasses import dataclass
from functools import lru_cache

from bridge.contract.streams import stream_named
from bridge.runtime.redis_url import crc16, of_shard, tag_of

MAX_SHARDS = 64
_PERPETUAL = "_PERP"  # behind the pair, in the symbol of its perpetual


@dataclass(frozen=True, slots=True)
class KeySpace:
    """All keys of one bridge and its consumers."""

    prefix: str = ""
    shards: int = 1

    def shard_of(self, name: str) -> int:
        """The shard of a stream, or of one of the keys that have no market, by its name."""
        return 0 if self.shards == 1 else _shard_of(name, self.shards)

    def prefix_of(self, shard: int) -> str:
        """What goes before all names of a shard."""
        if self.shards == 1:
            return self.prefix
        tag = tag_of(self.prefix)
        return self.prefix.replace(f"{{{tag}}}", f"{{{of_shard(tag, shard)}}}", 1)

    def key(self, name: str) -> str:
        """The key of a stream, or of anything else, by its name."""
        return self.prefix_of(self.shard_of(name)) + name

    def name(self, key: str) -> str:
        """The name behind a key."""
        if self.shards == 1:
            return key[len(self.prefix) :]
        behind_tag = len(self.prefix) - self.prefix.index("}")
        return key[key.index("}") + behind_tag :]

    def of(self, shard: int) -> "KeySpace":
        """One shard alone: every name is taken to be in it."""
        return KeySpace(self.prefix_of(shard))


PLAIN = KeySpace()  # names are keys


def stream_beside(name: str) -> str:
    """The stream, or the name of joined ones, that a key of the consumer kit is beside; empty where
    it is beside none.
    """
    head, _, rest = name.partition(":")
    return rest.partition(":")[0] if head == "consumers" else ""


@lru_cache(maxsize=65_536)
def _shard_of(name: str, shards: int) -> int:
    stream = stream_named(stream_beside(name) or name)
    if stream is None or not stream.symbol:
        return 0
    return crc16(stream.symbol.removesuffix(_PERPETUAL)) % shards
