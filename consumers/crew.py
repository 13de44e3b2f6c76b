"""What a worker knows of its surroundings: which streams there are, and who works beside it.

One task keeps it fresh over a connection of its own, so that it goes on while handlers await. It
holds leases, writes the worker's status, and touches no entry.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from consumers.keys import Keys
from consumers.link import Link, Stop
from consumers.registry import choose, near_misses, stream_names
from consumers.scripts import Call, script

_log = structlog.get_logger()
_CONNECTION = "beats"

TIDY_BEATS = 60
TOLD_KEPT_S = 3600  # the last word of a worker that is gone


class Loop(Protocol):
    """A loop of either mode, as this room sees it."""

    async def run(self, stop: Stop) -> None: ...

    async def keep(self, redis: Redis) -> None:
        """Called each beat: hold on to what is owned."""

    def made(self) -> str: ...


class Crew:
    """The facts, and the task that refreshes them."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        group: str,
        worker: str,
        *,
        mode: str,
        patterns: Sequence[str],
        beat_s: float,
        lease_ms: int,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self.group = group
        self._patterns = patterns
        self._about_group = json.dumps({"mode": mode, "streams": list(patterns)})
        self._beat_s = beat_s
        self._lease_ms = lease_ms
        self._registered: list[str] = []
        self.worker = worker
        self.streams: tuple[str, ...] = ()
        self.alive: tuple[str, ...] = ()
        self.beats = 0  # how often all this was refreshed
        self.steady_beats = 0  # the same, since Redis was last away, or emptied
        self.may_take = True  # streams that nobody owns; not while their owners may still tell

    @property
    def is_first(self) -> bool:
        """Whether this worker does what one of the group should do."""
        return bool(self.alive) and min(self.alive) == self.worker

    @property
    def knows_the_dead(self) -> bool:
        """Whether all that live have had the time to say so."""
        return self.steady_beats * self._beat_s * 1000 > self._lease_ms

    async def run(self, loop: Loop, report: Callable[[], str], link: Link, stop: Stop) -> None:
        """Beat until told to stop; then leave."""
        told_of: int | None = None  # how many streams there were when none of them fitted
        while not stop.is_set:
            try:
                await self._beat(loop, report())
                link.up(_CONNECTION)
            except RedisError as error:
                self.steady_beats = 0
                await link.down(_CONNECTION, error, stop)
                continue
            if not self.streams and told_of != len(self._registered):
                told_of = len(self._registered)
                self._tell_empty()
            await stop.wait(self._beat_s)

    async def leave(self, *, status_field: str) -> None:
        """Clean stop: gone from the list of workers and from the status."""
        await self._redis.zrem(self._keys.workers(self.group), self.worker)
        await self._redis.hdel(self._keys.status, status_field)

    def _tell_empty(self) -> None:
        near = near_misses(self._registered, self._patterns)
        suggested = {"nearest": " ".join(near)} if near else {}
        _log.info(
            "no_streams_yet",
            wanted=" ".join(self._patterns),
            registered=len(self._registered),
            **suggested,
        )

    async def _beat(self, loop: Loop, status: str) -> None:
        call = Call([self._keys.workers(self.group)], (self.worker, self._lease_ms))
        is_new, alive = await script("beat").run_one(self._redis, call)
        names = await stream_names(self._redis, self._keys)
        await loop.keep(self._redis)
        field = f"{self.group}/{self.worker}"
        await self._redis.hset(self._keys.status, field, status)
        await self._redis.hset(self._keys.groups, self.group, self._about_group)
        if names:  # an empty registry is one that Redis has lost: the bridge writes it again
            self._registered = names
            self.streams = choose(names, self._patterns)
        self.alive = tuple(alive)
        if is_new and self.beats:  # we were silent for long, or Redis has lost everything
            self.steady_beats, self.may_take = 0, False
        self.may_take |= self.knows_the_dead
        if self.is_first and self.beats % TIDY_BEATS == 0:
            await self._forget_the_dead()
        self.beats += 1
        self.steady_beats += 1

    async def _forget_the_dead(self) -> None:
        """What a killed worker last told of itself goes, too, in the end."""
        seconds, _ = await self._redis.time()
        told: Any = await self._redis.hgetall(self._keys.status)
        for field, text in told.items():
            group, _, worker = field.partition("/")
            if group == self.group and worker not in self.alive and _is_old(text, seconds):
                await self._redis.hdel(self._keys.status, field)


def _is_old(text: str, now_s: int) -> bool:
    try:
        told = json.loads(text)
        return bool(told["updated_us"] < (now_s - TOLD_KEPT_S) * 1_000_000)
    except (ValueError, TypeError, KeyError):
        return False  # somebody else's
