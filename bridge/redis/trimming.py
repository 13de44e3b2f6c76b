"""Trimming that waits for slow groups, if the configuration names any.

Then the append script does not trim; this does, each second: it keeps what retention keeps and what
the slowest of these groups has not settled. If Redis uses more memory than the limit, retention
alone counts, and this is logged.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Protocol

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from bridge.contract.streams import Stream
from bridge.redis.append import Retention
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.refusals import Refusal, is_of_a_key, meaning

log = structlog.get_logger(__name__)

SCRIPT = files("bridge.redis").joinpath("trim.lua").read_text("utf-8")
EVERY_S = 1.0
AT_ONCE = 1000  # entries read in one call: Redis serves other clients in between
CALLS_A_ROUND = 50
RIGHTS = "slow_groups needs +xlen +xpending +xinfo|groups"


class Reporter(Protocol):
    """The interface to the bridge; both values may change while it runs."""

    def streams(self) -> Mapping[str, Stream]: ...

    def retention(self) -> Retention: ...


class Trimming:
    """Trims one bridge's streams in one shard. `client`: that of the shard."""

    def __init__(
        self,
        client: Redis,
        space: KeySpace,
        reporter: Reporter,
        groups: Sequence[str],
        until_bytes: int,
        shard: int = 0,
    ) -> None:
        self._client = client
        self._space = space
        self._shard = shard
        self._reporter = reporter
        self._groups = groups
        self._until_bytes = until_bytes
        self._waiting: dict[str, str] = {}  # stream → the group that is waited for
        self._patient = True
        self._refused: dict[str, str] = {}  # stream (empty: all) → why it is not trimmed

    async def run(self) -> None:
        """Trim until cancelled. A refusal is logged once while it lasts; the publisher logs when
        Redis is unavailable.
        """
        trim = self._client.register_script(SCRIPT)
        while True:
            try:
                groups = await self._waited_for()
                for stream in list(self._reporter.streams().values()):
                    if self._space.shard_of(stream.name) == self._shard:
                        await self._trim_unless_refused(trim, stream, groups)
                self._note_refusal("", "")
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("trimming_failed", error=str(error))
                if meaning(error) is Refusal.NOT_ALLOWED:
                    self._note_refusal("", f"{error} ({RIGHTS})")
            await asyncio.sleep(EVERY_S)

    async def _waited_for(self) -> Sequence[str]:
        """The groups to wait for; none while Redis uses too much memory."""
        used = int((await self._client.info("memory"))["used_memory"])
        patient = used <= self._until_bytes
        if patient != self._patient:
            self._patient = patient
            event = "retention_waits_again" if patient else "retention_waits_no_longer"
            log.warning(event, used_bytes=used, until_bytes=self._until_bytes)
        return self._groups if patient else ()

    async def _trim_unless_refused(
        self, trim: Callable[..., object], stream: Stream, groups: Sequence[str]
    ) -> None:
        """Trim a stream. That Redis refuses this key alone must not end the round for others."""
        refused = ""
        try:
            await self._trim(trim, stream, groups)
        except ResponseError as error:
            if not is_of_a_key(error):
                raise
            refused = str(error)
        self._note_refusal(stream.name, refused)

    def _note_refusal(self, stream: str, reason: str) -> None:
        if _is_new(self._refused, stream, reason):
            log.warning("trimming_refused", stream=stream, reason=reason)

    async def _trim(
        self, trim: Callable[..., object], stream: Stream, groups: Sequence[str]
    ) -> None:
        limits = self._reporter.retention().kept(stream)
        key = self._space.key(stream.name)
        arguments = (limits.max_entries, limits.max_age_ms, AT_ONCE, *groups)
        for _ in range(CALLS_A_ROUND):
            more, keeper = await trim(keys=[key], args=arguments)  # type: ignore[misc]
            if not more:
                break
        group = keeper.decode() if isinstance(keeper, bytes) else keeper
        if _is_new(self._waiting, stream.name, group):
            log.info("retention_waits", stream=stream.name, group=group)


def _is_new(known: dict[str, str], stream: str, text: str) -> bool:
    """Set a stream's text (empty: it has none). Returns whether it has one that it had not."""
    before = known.pop(stream, "")
    if text:
        known[stream] = text
    return text not in ("", before)
