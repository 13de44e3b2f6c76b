"""When an entry counts as published: in the memory of the primary, on a replica, or on its disk
(pure).

Checked by WAIT and WAITAOF, which cover the writes of the *connection they are sent on*. An entry
that was appended over another connection or by another bridge is not covered; so a small write goes
before each of them: in the order of replication, everything in earlier replies is before it.
"""

from dataclasses import dataclass
from typing import Literal

import hiredis

from bridge.contract import keys
from bridge.redis.append import Reply, pack
from bridge.runtime.refusals import Refused

Level = Literal["memory", "replica", "fsynced"]


@dataclass(frozen=True, slots=True)
class Durability:
    """What counts as published. `replicas`: for level `replica`; `timeout_s`: of one WAIT."""

    level: Level = "memory"
    replicas: int = 1
    timeout_s: float = 1.0

    @property
    def is_waited_for(self) -> bool:
        """Whether WAIT or WAITAOF is needed."""
        return self.level != "memory"

    def write(self, prefix: str) -> bytes:
        """The small write before WAIT or WAITAOF."""
        return pack("SET", prefix + keys.DURABLE, self.level)

    def wait(self) -> bytes:
        """The packed WAIT or WAITAOF."""
        timeout_ms = max(1, round(self.timeout_s * 1000))
        if self.level == "replica":
            return pack("WAIT", self.replicas, timeout_ms)
        return pack("WAITAOF", 1, 0, timeout_ms)

    def missing(self, reply: Reply) -> str:
        """Why the level is not reached; empty: it is. Raises Refused on an error reply."""
        if isinstance(reply, hiredis.ReplyError):
            raise Refused(f"publish.durability.level is {self.level}: {_refusal(str(reply))}")
        if self.level == "replica" and isinstance(reply, int):
            if reply >= self.replicas:
                return ""
            return f"{reply} of {self.replicas} replicas have it after {self.timeout_s:g} s"
        if isinstance(reply, list) and reply[0] >= 1:
            return ""
        return f"it is not on the disk of Redis after {self.timeout_s:g} s"


MEMORY = Durability()


def _refusal(error: str) -> str:
    if "unknown command" in error.lower():
        return "this server has no WAITAOF (Redis 7.2 has, and Valkey): choose replica or memory"
    if "appendonly" in error:
        return "the server keeps no append-only file: set appendonly yes, or choose another level"
    if "replica" in error and "WAIT" in error:
        return f"this is a replica, use its primary ({error})"
    return f"Redis refused: {error}"
