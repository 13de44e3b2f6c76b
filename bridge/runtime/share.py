"""Which member of a fleet of bridges is to receive which streams (pure).

Rendezvous hashing: each member has a weight for each market, and the heaviest has it. So one more
member takes its share from all others, one less leaves its own to them, and nothing else moves; and
every bridge finds the same without asking another. Streams of a market stay together. Those of the
account cannot be spread, since the exchange counts them as one: they are the first member's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from bridge.contract.streams import Stream


@dataclass(frozen=True, slots=True)
class Share:
    """The members of a fleet, and which of them this bridge is. Several bridges may be the same
    one: they receive the same streams, as two bridges do.
    """

    members: tuple[str, ...]
    me: str

    def owner(self, stream: Stream) -> str:
        """The member that is to receive it."""
        if stream.is_private:
            return self.members[0]
        return _owner(stream.symbol or stream.name, self.members)

    def is_mine(self, stream: Stream) -> bool:
        return self.owner(stream) == self.me


@lru_cache(maxsize=10_000)
def _owner(key: str, members: tuple[str, ...]) -> str:
    return max(members, key=lambda member: (_weight(member, key), member))


def _weight(member: str, key: str) -> bytes:
    return blake2b(f"{member}\n{key}".encode(), digest_size=8).digest()


def others(share: Share | None, streams: Mapping[str, Stream]) -> dict[str, str]:
    """Those of the streams that another member is to receive, and which."""
    if share is None:
        return {}
    owners = {name: share.owner(stream) for name, stream in streams.items()}
    return {name: owner for name, owner in owners.items() if owner != share.me}
