"""How groups stand: lag in entries and seconds, what waits, what went wrong, who owns what.

Worked out in Redis, stream by stream, from IDs and counters (`standing.lua`). Reads, and writes
nothing. Groups of other programs are there too, with what Redis itself knows of them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from redis.asyncio import Redis

from consumers.keys import Keys
from consumers.policy import chunks
from consumers.registry import choose, stream_names
from consumers.scripts import Call, checked, script

COUNTED_UP_TO = 1000  # unread entries that are counted one by one
SILENT_S = 5.0  # a worker that has not written its status for so long is gone


@dataclass(frozen=True, slots=True)
class Place:
    """A group in one stream.

    `lag` are the unread entries. `sure` says how it is known: `exact`, `counted` (from counters:
    entries deleted in between are in it), `at_most`. `behind_s` is the age of the first unread
    entry by its ID, `oldest_pending_s` that of the oldest entry handed out and not settled.
    """

    stream: str
    position: str
    lag: int
    sure: str
    behind_s: float
    pending: int
    oldest_pending_s: float
    owner: str
    dead: int
    missed: int
    blocked_at: str


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker told of itself in its last status."""

    name: str
    silent_s: float
    handled: int
    failed: int
    retried: int
    late: int
    rate: float
    streams: int

    @property
    def is_alive(self) -> bool:
        return self.silent_s <= SILENT_S


@dataclass(frozen=True, slots=True)
class GroupStanding:
    """A group: its places and its workers. `mode` is empty for groups of other programs."""

    name: str
    mode: str
    places: Sequence[Place] = ()
    workers: Sequence[Worker] = field(default=())

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "group": self.name,
            "mode": self.mode,
            "lag": sum(place.lag for place in self.places),
            "behind_s": max((place.behind_s for place in self.places), default=0.0),
            "pending": sum(place.pending for place in self.places),
            "dead": sum(place.dead for place in self.places),
            "missed": sum(place.missed for place in self.places),
            "retried": sum(worker.retried for worker in self.workers),
            "workers": [asdict(worker) for worker in self.workers],
            "streams": [asdict(place) for place in self.places],
        }


async def standings(
    redis: Redis, keys: Keys, group: str | None = None, patterns: Sequence[str] = ("*",)
) -> list[GroupStanding]:
    """All groups, or one, in the streams that fit, sorted by name."""
    told: Any = await redis.hgetall(keys.groups)
    about: dict[str, Any] = {name: json.loads(text) for name, text in told.items()}
    places: dict[str, list[Place]] = {name: [] for name in about}
    now_ms = 0
    for streams in chunks(choose(await stream_names(redis, keys), patterns)):
        calls = [_call(keys, stream, list(about)) for stream in streams]
        replies = checked(await script("standing").run(redis, calls))
        for stream, reply in zip(streams, replies, strict=True):
            if reply is not None:
                _, _, now, *groups = reply
                now_ms = int(now)
                for one in groups:
                    places.setdefault(one[0], []).append(_place(stream, now_ms, *one[1:]))
    workers = await _workers(redis, keys)
    return [
        GroupStanding(name, about.get(name, {}).get("mode", ""), here, workers.get(name, ()))
        for name, here in sorted(places.items())
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


def _place(
    stream: str,
    now_ms: int,
    position: str,
    lag: int,
    sure: str,
    first_unread: str,
    pending: int,
    oldest_pending: str,
    owner: str,
    dead: int,
    missed: int,
    blocked_at: str,
) -> Place:
    return Place(
        stream=stream,
        position=position,
        lag=int(lag),
        sure=sure,
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


_NEEDED = frozenset(
    {"group", "consumer", "updated_us", "handled", "failed", "retried", "late", "rate", "streams"}
)


def _told(text: bytes | str) -> dict[str, Any] | None:
    try:
        told = json.loads(text)
    except ValueError:
        return None
    return told if isinstance(told, dict) and told.keys() >= _NEEDED else None


async def _workers(redis: Redis, keys: Keys) -> dict[str, list[Worker]]:
    seconds, micros = await redis.time()
    now_us = seconds * 1_000_000 + micros
    found: dict[str, list[Worker]] = {}
    for text in (await redis.hgetall(keys.status)).values():
        told = _told(text)
        if told is None:
            continue  # somebody else's
        found.setdefault(told["group"], []).append(
            Worker(
                name=told["consumer"],
                silent_s=max(0.0, (now_us - told["updated_us"]) / 1_000_000),
                handled=told["handled"],
                failed=told["failed"],
                retried=told["retried"],
                late=told["late"],
                rate=told["rate"],
                streams=len(told["streams"]),
            )
        )
    return {group: sorted(some, key=lambda one: one.name) for group, some in found.items()}
