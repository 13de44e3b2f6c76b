"""A worker's membership in its group: the registered streams and the live workers.

Refreshed with each heartbeat, over a connection of its own, so that it continues while handlers
wait. Does not access entries or leases.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import structlog
from redis.asyncio import Redis

from bridge.contract.json_text import parsed
from bridge.errors import ConfigError
from consumers.kit.api.consumer import Mode
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.registry import choose, near_misses, registered
from consumers.kit.redis.scripts import Call, script

_log = structlog.get_logger()

TIDY_BEATS = 60
STATUS_KEPT_S = 3600  # how long the last status of a dead worker is kept


class Membership:
    """The state of the group as of the last heartbeat."""

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
        self._patterns = patterns
        self._mode = mode
        self._about_group = json.dumps({"mode": mode, "streams": list(patterns)})
        self._lease_ms = lease_ms
        self._registered: list[str] = []
        self._missing: set[str] = set()  # of these, missing from the registry at the last beat
        self._refused: set[str] = set()
        self._logged_registered: int | None = None  # how many there were when none fitted
        self._name_guard = NameGuard()
        self._steady_beats = 0  # since Redis was last unavailable, or emptied
        self._ahead_ms: float | None = None  # the server's clock minus the monotonic one
        self.beat_s = beat_s
        self.group = group
        self.worker = worker
        self.streams: tuple[str, ...] = ()
        self.alive: tuple[str, ...] = ()
        # Live worker → the streams that match its patterns.
        self.streams_by_worker: Mapping[str, frozenset[str]] = {}
        self.beats = 0  # number of completed heartbeats
        # Whether free streams may be acquired. False after Redis was emptied, or this worker was
        # silent, until live owners have had the time to restore their leases.
        self.may_take = True

    @property
    def now_ms(self) -> int | None:
        """The server's time, ms since 1970; None before the first heartbeat."""
        return None if self._ahead_ms is None else int(time.monotonic() * 1000 + self._ahead_ms)

    @property
    def is_first(self) -> bool:
        """Whether this worker does the tasks that one worker does for the group."""
        return bool(self.alive) and min(self.alive) == self.worker

    @property
    def knows_dead_workers(self) -> bool:
        """Whether all live workers have had the time for a heartbeat, so others are dead."""
        return self._steady_beats * self.beat_s * 1000 > self._lease_ms

    @property
    def shards(self) -> int:
        """The number of shards that hold the streams."""
        return self._keys.space.shards

    def shard_of(self, stream: str) -> int:
        """The shard of a stream."""
        return self._keys.space.shard_of(stream)

    def streams_in(self, shard: int) -> tuple[str, ...]:
        """The streams of one shard."""
        if self.shards == 1:
            return self.streams
        return tuple(name for name in self.streams if self.shard_of(name) == shard)

    async def beat(self, status: str) -> None:
        """Send a heartbeat, write this worker's status (JSON), and refresh the state. Raises what
        Redis raises; ConfigError if the group's consumers have another mode."""
        if not self.beats:
            await self._refuse_another_mode()
        is_new, alive, now_ms = await script("heartbeat").run_one(self._redis, self.alive_call())
        self._ahead_ms = int(now_ms) - time.monotonic() * 1000
        names, refused = await registered(self._redis, self._keys)
        self._log_refused(refused)
        await self._write_status(status)
        added = await self._redis.hset(self._keys.groups, self.group, self._about_group)
        if not added and not self.beats:
            self._log_position_kept()
        # `is_new`: this worker was not in the group's list, so the others counted it as dead, or
        # Redis was emptied and its owners may be outdated. Wait for the duration of a lease before
        # taking streams.
        if is_new and self.beats:  # this worker was silent for long, or Redis was emptied
            self._steady_beats, self.may_take = 0, False
        self.may_take |= self.knows_dead_workers
        self._take_in(names)
        self.alive = tuple(alive)
        self.streams_by_worker = await self._read_patterns()
        if self.is_first and self.beats % TIDY_BEATS == 0:
            await self._forget_the_dead()
        # Last: the loops watch this number; when it changes, the state above is fresh.
        self.beats += 1
        self._steady_beats += 1
        self._log_if_empty()

    def _take_in(self, names: Sequence[str]) -> None:
        """Update the streams from the registry. After Redis has lost it, the bridges rewrite it,
        each its own part: so a stream counts as removed once it is missing twice, and not while
        `may_take` is False.
        """
        if not names:  # the whole registry is lost
            return
        missing = set(self._registered).difference(names)
        removed = missing & self._missing if self.may_take else set()
        self._missing = missing - removed
        self._registered = [*names, *sorted(self._missing)]
        self.streams = choose(self._registered, self._patterns)

    def alive_call(self) -> Call:
        """The call of `heartbeat.lua` for this worker."""
        return Call([self._keys.workers(self.group)], (self.worker, self._lease_ms))

    def missed_beat(self) -> None:
        """Record that Redis did not answer: live workers may have been unable to send a beat."""
        self._steady_beats = 0

    async def leave(self) -> None:
        """Clean stop: remove this worker from the list of workers and from the status."""
        await self._redis.zrem(self._keys.workers(self.group), self.worker)
        await self._redis.hdel(self._keys.status, self._status_field)

    async def _refuse_another_mode(self) -> None:
        """Raise ConfigError if the group has another mode: each mode has its own progress, so
        entries would be handled twice."""
        text: Any = await self._redis.hget(self._keys.groups, self.group)
        theirs = _mode_of(text)
        if theirs not in ("", self._mode):
            raise ConfigError(
                f"group {self.group} is {theirs}, as {self._keys.groups} says, and this consumer "
                f"is {self._mode}: give it another name, or another --group"
            )

    async def _write_status(self, status: str) -> None:
        """Write this worker's status. Effect: logs another process that uses the same name."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hget(self._keys.status, self._status_field)
            pipeline.hset(self._keys.status, self._status_field, status)
            before, _ = await pipeline.execute()
        if (other := self._name_guard.detect(before, status)) is not None:
            _log.warning(
                "worker_name_taken",
                group=self.group,
                consumer=self.worker,
                by=other,
                then="give each worker of a group a --name of its own",
            )

    @property
    def _status_field(self) -> str:
        return f"{self.group}/{self.worker}"

    def _log_position_kept(self) -> None:
        """Log that `--from` has no effect, since the group exists already."""
        _log.info(
            "group_goes_on",
            group=self.group,
            after="what it has handled; --from is for streams that it has not begun",
            to_begin_anew="take another --group",
        )

    def _log_refused(self, names: Sequence[str]) -> None:
        """Log each refused name once."""
        for name in names:
            if name not in self._refused:
                _log.warning("stream_name_refused", name=name)
        self._refused.update(names)

    async def _read_patterns(self) -> Mapping[str, frozenset[str]]:
        """Live worker → streams that match the patterns in its status: workers of a group may have
        different patterns."""
        fields = [f"{self.group}/{worker}" for worker in self.alive]
        texts: Any = await self._redis.hmget(self._keys.status, fields) if fields else []
        # A worker without a status yet is assumed to have the patterns of this one.
        patterns = [_patterns(text) or tuple(self._patterns) for text in texts]
        chosen = {some: frozenset(choose(self._registered, some)) for some in set(patterns)}
        return {one: chosen[some] for one, some in zip(self.alive, patterns, strict=True)}

    def _log_if_empty(self) -> None:
        if self.streams or self._logged_registered == len(self._registered):
            return
        self._logged_registered = len(self._registered)
        near = near_misses(self._registered, self._patterns)
        suggested = {"nearest": " ".join(near)} if near else {}
        _log.info(
            "no_streams_yet",
            wanted=" ".join(self._patterns),
            registered=len(self._registered),
            **suggested,
        )

    async def _forget_the_dead(self) -> None:
        """Delete old statuses of this group's dead workers: a killed worker leaves its last one."""
        seconds, _ = await self._redis.time()
        statuses: Any = await self._redis.hgetall(self._keys.status)
        for field, text in statuses.items():
            group, _, worker = field.partition("/")
            if group == self.group and worker not in self.alive and _is_old(text, seconds):
                await self._redis.hdel(self._keys.status, field)


class NameGuard:
    """Detects another process that runs under this worker's name (pure).

    A killed process leaves its last status behind. So only a status that is written again, after
    ours has replaced it, belongs to a live process.
    """

    def __init__(self) -> None:
        self._ours = ""  # the status that was written last
        self._first_us: dict[_Process, int] = {}  # process → time of its first status seen, µs
        self._reported: set[_Process] = set()

    def detect(self, before: str | None, ours: str) -> str | None:
        """A description of the other process, once for each; None if there is no new one. `before`
        is the status that `ours` is about to replace; both are JSON.
        """
        is_own = before is None or before == self._ours
        self._ours = ours
        if is_own or (writer := _process(before)) is None:
            return None
        other, updated_us = writer
        mine = _process(ours)
        first_us = self._first_us.setdefault(other, updated_us)
        if updated_us <= first_us or other in self._reported or (mine and other == mine[0]):
            return None
        self._reported.add(other)
        return f"process {other.pid} on {other.host}"


class _Process(NamedTuple):
    host: str
    pid: int
    started_us: int


def _process(status: str | None) -> tuple[_Process, int] | None:
    """The process that wrote a status, and when, µs; None if another program wrote it."""
    try:
        about = parsed(status or "{}")
        process = _Process(str(about["host"]), int(about["pid"]), int(about["started_us"]))
        return process, int(about["updated_us"])
    except (ValueError, TypeError, KeyError, OverflowError):  # OverflowError: int() of 1e999
        return None


def _patterns(text: str | None) -> tuple[str, ...]:
    try:
        patterns = parsed(text or "{}")["patterns"]
    except (ValueError, TypeError, KeyError):
        return ()  # written by an older version, or by another program
    return tuple(map(str, patterns)) if isinstance(patterns, list) else ()


def _is_old(text: str, now_s: int) -> bool:
    try:
        status = parsed(text)
        return bool(status["updated_us"] < (now_s - STATUS_KEPT_S) * 1_000_000)
    except (ValueError, TypeError, KeyError):
        return False  # written by another program


def _mode_of(text: str | None) -> str:
    """The mode of a group, as written by one of its workers; empty if missing or invalid."""
    try:
        about = parsed(text or "{}")
    except ValueError:
        return ""
    mode = about.get("mode") if isinstance(about, dict) else None
    return str(mode) if mode in get_args(Mode) else ""
