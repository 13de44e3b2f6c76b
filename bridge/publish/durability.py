"""When an entry counts as published: in the memory of the primary, on a replica, or on its disk.

Asked with WAIT and WAITAOF, which speak of the writes of the *connection they are sent on*. An
entry that was appended before, over another connection or by another bridge, is none of those; so
each question is preceded by a small write, behind which in the order of replication everything lies
that the answers before it told of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import hiredis
import structlog

from bridge.contract import keys
from bridge.publish.wire import Reply, Wire, WireLost, pack

log = structlog.get_logger(__name__)

Level = Literal["memory", "replica", "fsynced"]


@dataclass(frozen=True, slots=True)
class Durability:
    """What counts as published. `replicas` is for level `replica`; `timeout_s` for one question."""

    level: Level = "memory"
    replicas: int = 1
    timeout_s: float = 1.0

    def question(self) -> bytes:
        """WAIT or WAITAOF."""
        timeout_ms = max(1, round(self.timeout_s * 1000))
        if self.level == "replica":
            return pack("WAIT", self.replicas, timeout_ms)
        return pack("WAITAOF", 1, 0, timeout_ms)

    def missing(self, reply: Reply) -> str:
        """What is not reached, in words; empty where it is. Raises WireLost on a refusal."""
        if isinstance(reply, hiredis.ReplyError):
            raise WireLost(f"publish.durability.level is {self.level}: {_refusal(str(reply))}")
        if self.level == "replica" and isinstance(reply, int):
            if reply >= self.replicas:
                return ""
            return f"{reply} of {self.replicas} replicas have it after {self.timeout_s:g} s"
        if isinstance(reply, list) and reply[0] >= 1:
            return ""
        return f"it is not on the disk of Redis after {self.timeout_s:g} s"


def _refusal(error: str) -> str:
    if "unknown command" in error.lower():
        return "this server has no WAITAOF (Redis 7.2 has, and Valkey): choose replica or memory"
    if "appendonly" in error:
        return "the server keeps no append-only file: set appendonly yes, or choose another level"
    if "replica" in error and "WAIT" in error:
        return f"this is a replica, use its primary ({error})"
    return f"Redis refused: {error}"


class DurableWire:
    """Asks over one wire until what was sent before is as durable as wanted."""

    def __init__(
        self, durability: Durability, prefix: str, on_trouble: Callable[[str], None]
    ) -> None:
        """`on_trouble` is told why it is not reached, and the empty string once it is."""
        self._durability = durability
        self._write = pack("SET", prefix + keys.DURABLE, durability.level)
        self._on_trouble = on_trouble
        self.is_asked = durability.level != "memory"

    async def reach(self, wire: Wire, timeout_s: float) -> None:
        """Ask until it is reached: nothing may count as published before. Raises WireLost."""
        question, limit_s = self._durability.question(), timeout_s + self._durability.timeout_s
        _, reply = await wire.call(self._write + question, 2, limit_s)
        was_missing = ""
        while missing := self._durability.missing(reply):
            if not was_missing:
                log.warning("not_durable", level=self._durability.level, reason=missing)
                self._on_trouble(f"waiting for durability: {missing}")
            was_missing = missing
            [reply] = await wire.call(question, 1, limit_s)
        if was_missing:
            log.info("durable_again", level=self._durability.level)
            self._on_trouble("")
