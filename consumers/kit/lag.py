"""The lag of groups: entries and seconds behind; pending, dead and missed entries; owners.

Computed in Redis, stream by stream, from IDs and counters (`lag.lua`). Read-only. Groups of other
programs are included, with the data that Redis itself keeps.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.contract.json_text import parsed
from bridge.contract.latency import BOUNDS_US
from bridge.runtime.refusals import raise_not_allowed
from consumers.kit.policy import chunks
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.registry import FIRST_SHARD, LOST, choose, known_in
from consumers.kit.redis.scripts import Call, checked, script

Whole = Annotated[int, Strict(), Field(ge=0, lt=2**63)]

COUNTED_UP_TO = 1000  # up to this many unread entries are counted one by one
SILENT_S = 5.0  # a worker without a heartbeat for longer counts as dead


@dataclass(frozen=True, slots=True)
class StreamLag:
    """The lag of a group in one stream.

    `lag` is the number of unread entries, and `precision` its accuracy: `exact`, `counted` (from
    counters: includes entries deleted in between), `at_most`. `behind_s` is the age of the first
    unread entry by its ID, `oldest_pending_s` that of the oldest delivered entry that is not
    settled.
    """

    stream: str
    position: str
    lag: int
    precision: str
    behind_s: float
    pending: int
    oldest_pending_s: float
    owner: str
    dead: int
    missed: int
    blocked_at: str


@dataclass(frozen=True, slots=True)
class Took:
    """Latencies from receipt by the bridge to the end of handling, since the worker's start: counts
    of entries by the buckets of `bridge.contract.latency`, and their sum.
    """

    counts: Sequence[int] = ()
    sum_us: int = 0


_NOTHING = Took()


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as described by its last status."""

    name: str
    silent_s: float
    handled: int
    failed: int
    retried: int
    late: int
    undecodable: int
    rate: float
    streams: int
    started_us: int = 0
    took: Took = _NOTHING

    @property
    def is_alive(self) -> bool:
        return self.silent_s <= SILENT_S


@dataclass(frozen=True, slots=True)
class GroupLag:
    """A group: its streams and its workers. `mode` is empty for groups of other programs."""

    name: str
    mode: str
    streams: Sequence[StreamLag] = ()
    workers: Sequence[Worker] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The group with its totals, for JSON."""
        return {
            "group": self.name,
            "mode": self.mode,
            "lag": sum(one.lag for one in self.streams),
            "behind_s": max((one.behind_s for one in self.streams), default=0.0),
            "pending": sum(one.pending for one in self.streams),
            "dead": sum(one.dead for one in self.streams),
            "missed": sum(one.missed for one in self.streams),
            "undecodable": sum(worker.undecodable for worker in self.workers),
            "retried": sum(worker.retried for worker in self.workers),
            "workers": [asdict(worker) for worker in self.workers],
            "streams": [asdict(one) for one in self.streams],
        }


async def group_lags(
    redis: Redis,
    keys: Keys,
    group: str | None = None,
    patterns: Sequence[str] = ("*",),
    unavailable: dict[int, str] | None = None,
) -> list[GroupLag]:
    """All groups, or one, in the streams that match, sorted by name.

    With `unavailable`, streams of a shard that does not answer are left out (and all workers if it
    is the first shard, which alone has them), and the dict gets shard → reason. Raises what Redis
    raises: without `unavailable`, or if no shard answers.
    """
    known = await known_in(redis, keys, in_part=unavailable is not None)
    silent = dict(known.unavailable)
    about = {name: _json(text) for name, text in known.groups.items()}
    # The kit's groups are listed also where they are in no stream yet; groups of other programs
    # are found in the streams.
    by_group: dict[str, list[StreamLag]] = {name: [] for name in about}
    modes: dict[str, str] = {}
    for streams in chunks(choose(known.streams, patterns)):
        calls = [_call(keys, stream, list(about)) for stream in streams]
        replies = await script("lag").run(redis, calls)
        silent |= {
            keys.space.shard_of(stream): str(reply)
            for stream, reply in zip(streams, replies, strict=True)
            if unavailable is not None and keys.space.shards > 1 and isinstance(reply, LOST)
        }
        lost = [keys.space.shard_of(stream) in silent for stream in streams]
        checked([reply for reply, is_lost in zip(replies, lost, strict=True) if not is_lost])
        for stream, reply, is_lost in zip(streams, replies, lost, strict=True):
            if reply is not None and not is_lost:
                _, _, now, *groups = reply
                for name, *facts, mode in groups:
                    by_group.setdefault(name, []).append(_stream_lag(stream, int(now), *facts))
                    modes[name] = mode or modes.get(name, "")
    if len(silent) == keys.space.shards:  # all of them since the registry was read
        raise RedisConnectionError(next(iter(silent.values())))
    workers = {} if FIRST_SHARD in silent else await _workers(redis, keys)
    if unavailable is not None:
        unavailable |= silent
    return [
        GroupLag(
            name,
            str(about.get(name, {}).get("mode", "")) or modes.get(name, ""),
            here,
            workers.get(name, ()),
        )
        for name, here in sorted(by_group.items())
        if group in (None, name)
    ]


def _call(keys: Keys, stream: str, groups: Sequence[str]) -> Call:
    beside = [
        key
        for group in groups
        for key in (
            keys.position(stream, group),
            keys.settled(stream, group),
            keys.lease(stream, group),
            keys.dead(stream, group),
        )
    ]
    return Call((keys.stream(stream), *beside), (COUNTED_UP_TO, *groups))


def _stream_lag(
    stream: str,
    now_ms: int,
    position: str,
    lag: int,
    precision: str,
    first_unread: str,
    pending: int,
    oldest_pending: str,
    owner: str,
    dead: int,
    missed: int,
    blocked_at: str,
) -> StreamLag:
    return StreamLag(
        stream=stream,
        position=position,
        lag=int(lag),
        precision=precision,
        behind_s=_age_s(now_ms, first_unread),
        pending=int(pending),
        oldest_pending_s=_age_s(now_ms, oldest_pending),
        owner=owner.split("/")[0],
        dead=int(dead),
        missed=int(missed),
        blocked_at=blocked_at,
    )


def _age_s(now_ms: int, entry_id: str) -> float:
    return max(0.0, (now_ms - int(entry_id.split("-")[0])) / 1000) if entry_id else 0.0


class _Status(BaseModel):
    """The fields of a worker's status that are used here. Another program may have written
    anything: text is not accepted as a number, nor are infinities.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    group: str
    consumer: str
    updated_us: Whole
    handled: Whole
    failed: Whole
    retried: Whole
    late: Whole
    undecodable: Whole
    rate: Annotated[float, Strict()]
    streams: dict[str, Any]
    started_us: Whole = 0
    latencies: Any = None


class _Latencies(BaseModel):
    """The latencies in a worker's status."""

    counts: tuple[Whole, ...]
    sum_us: Annotated[int, Strict(), Field(gt=-(2**63), lt=2**63)]  # of two machines' clocks


def _status(text: bytes | str) -> _Status | None:
    try:
        return _Status.model_validate(_json(text))
    except ValidationError:
        return None


def _json(text: bytes | str) -> dict[str, Any]:
    """The JSON object; empty if the text is anything else, written by another program."""
    try:
        value = parsed(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def _workers(redis: Redis, keys: Keys) -> dict[str, list[Worker]]:
    seconds, micros = await redis.time()
    now_us = seconds * 1_000_000 + micros
    texts = (await redis.hgetall(keys.status)).values()
    # statuses written by other programs are skipped
    known = [status for text in texts if (status := _status(text)) is not None]
    beats = await _beats(redis, keys, {status.group for status in known})
    by_group: dict[str, list[Worker]] = {}
    for status in known:
        beat_us = beats.get((status.group, status.consumer))
        by_group.setdefault(status.group, []).append(
            Worker(
                name=status.consumer,
                silent_s=_silent_s(now_us, beat_us, status.updated_us),
                handled=status.handled,
                failed=status.failed,
                retried=status.retried,
                late=status.late,
                undecodable=status.undecodable,
                rate=status.rate,
                streams=len(status.streams),
                started_us=status.started_us,
                took=_took(status.latencies),
            )
        )
    return {group: sorted(some, key=lambda one: one.name) for group, some in by_group.items()}


def _took(reported: Any) -> Took:
    """The latencies of a status; empty if it has none, or has other buckets (other versions)."""
    try:
        latencies = _Latencies.model_validate(reported)
    except ValidationError:
        return _NOTHING
    if len(latencies.counts) != len(BOUNDS_US) + 1:
        return _NOTHING
    return Took(latencies.counts, latencies.sum_us)


async def _beats(redis: Redis, keys: Keys, groups: Collection[str]) -> dict[tuple[str, str], int]:
    """(Group, worker) → time of its last heartbeat, µs since 1970 by Redis' clock, as a worker's
    own clock may be wrong.
    """
    async with redis.pipeline(transaction=False) as pipeline:
        for group in groups:
            pipeline.zrange(keys.workers(group), 0, -1, withscores=True)
        replies = await pipeline.execute(raise_on_error=False)
    raise_not_allowed(replies)
    return {
        (group, name.partition("/")[0]): int(ms) * 1000
        for group, members in zip(groups, replies, strict=True)
        if not isinstance(members, Exception)
        for name, ms in members
        if isfinite(ms)  # another program may have written an infinite score
    }


def _silent_s(now_us: int, beat_us: int | None, updated_us: int) -> float:
    """Time since the last heartbeat, s. A worker that its group has removed has no heartbeat: it
    counts as silent, whatever its status says."""
    if beat_us is not None:
        return max(0.0, (now_us - beat_us) / 1_000_000)
    return max(2 * SILENT_S, (now_us - updated_us) / 1_000_000)
