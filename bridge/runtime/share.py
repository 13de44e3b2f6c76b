"""Assigns streams to the members of a fleet of bridges (pure).

Rendezvous hashing: each member has a weight for each market, and the highest weight gets it. So a
new member takes its share from all others, a removed one leaves its share to them, and no other
stream moves; every bridge computes the same result without communication. A market's streams stay
together. Those of the account cannot be split, since the exchange numbers them as one: they go to
the first member.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from bridge.contract.streams import Stream


@dataclass(frozen=True, slots=True)
class Share:
    """The members of a fleet, and this bridge's own. Several bridges may be the same member: they
    receive the same streams, as redundant bridges do.
    """

    members: tuple[str, ...]
    me: str

    def owner(self, stream: Stream) -> str:
        """The member that receives the stream."""
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
    """Streams that another member receives, each with that member."""
    if share is None:
        return {}
    owners = {name: share.owner(stream) for name, stream in streams.items()}
    return {name: owner for name, owner in owners.items() if owner != share.me}
