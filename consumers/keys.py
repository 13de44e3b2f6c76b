"""Names of the keys in Redis that the kit reads and writes (pure).

What a script touches beside a stream carries the stream's full key in braces, so that both live in
one slot of a Cluster: `consumers:{trade.SOL_USDC}:candles:lease`.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """All key names behind one prefix."""

    prefix: str = ""

    @property
    def registry(self) -> str:
        """Hash of the bridge: stream name → JSON about it."""
        return f"{self.prefix}bridge:streams"

    @property
    def status(self) -> str:
        """Hash `<group>/<consumer>` → JSON of that worker."""
        return f"{self.prefix}consumers:status"

    @property
    def groups(self) -> str:
        """Hash: group → JSON about it: `mode`, `streams` (patterns)."""
        return f"{self.prefix}consumers:groups"

    def workers(self, group: str) -> str:
        """Sorted set: names of a group's workers by the time of their last heartbeat, ms."""
        return f"{self.prefix}consumers:workers:{group}"

    def stream(self, name: str) -> str:
        """The key of a stream of the exchange."""
        return f"{self.prefix}{name}"

    def beside(self, stream: str, group: str, part: str = "") -> str:
        """A key of a group that lives in the stream's slot."""
        whole = f"{self.prefix}consumers:{{{self.prefix}{stream}}}:{group}"
        return f"{whole}:{part}" if part else whole

    def all_beside(self, group: str) -> str:
        """A pattern for SCAN: a group's keys in all slots, and those of names that begin so."""
        return f"{_literal(self.prefix)}consumers:{{*}}:{_literal(group)}*"

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
        return key[len(self.prefix) :]


def _literal(text: str) -> str:
    """As a part of a glob pattern that fits nothing else."""
    return re.sub(r"[*?\[\]\\]", r"\\\g<0>", text)
