"""What consumer groups have done with one entry, as far as Redis keeps it. Read-only.

The names of the kit's keys are those of docs/contract.md ("The consumer kit's keys").
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import redis

from bridge.contract.identity import EntryId
from bridge.contract.json_text import parsed
from bridge.contract.whole_number import whole_number
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_url import tag_of

_PAGE = 500
_MOST_FIELDS = 1000  # of a result hash that is searched
_KIT = frozenset({"position", "lease", "state", "settled", "dead", "again"})  # not results


class Progress(StrEnum):
    """The state of an entry in a group."""

    AHEAD = "not delivered yet"
    IN_HAND = "in hand"  # ordered mode: the owner is trying it
    PENDING = "pending"  # shared mode: delivered, not acknowledged
    DEAD = "dead letter"
    SENT_BACK = "dead letter, sent back"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter of the entry."""

    letter_id: str
    attempts: int
    error: str
    at: str
    worker: str


@dataclass(frozen=True, slots=True)
class GroupLife:
    """One group. `mode`: ordered, shared, or empty for groups of other programs. `worker` has the
    entry in hand, or owns the stream; `deliveries` 0: no longer counted, or, while pending,
    returned by that worker before it started. `missed`: entries of this stream that were trimmed
    before the group had read them. `results`: a sentence each.
    """

    group: str
    mode: str
    progress: Progress
    position: str
    worker: str = ""
    deliveries: int = 0
    idle_ms: int | None = None
    missed: int = 0
    letter: Letter | None = None
    results: tuple[str, ...] = field(default=())


class Groups:
    """The consumer groups of one stream."""

    def __init__(self, client: "redis.Redis", space: KeySpace, stream: str) -> None:
        self._client: Any = client
        self._space = space
        self._stream = stream
        self._key = space.key(stream)

    def lives(self, entry_id: str, number: int | None) -> list[GroupLife]:
        """What each group has done with this entry; `number` is the exchange's, of sequenced
        streams.
        """
        try:
            groups = self._client.xinfo_groups(self._key)
        except redis.ResponseError:
            return []  # no such stream
        modes = self._modes()
        return [self._life(one, modes.get(one["name"], ""), entry_id, number) for one in groups]

    def _modes(self) -> Mapping[str, str]:
        found = {}
        for name, text in self._client.hgetall(self._space.key("consumers:groups")).items():
            try:
                facts = parsed(text)
            except ValueError:
                continue
            found[name] = str(facts.get("mode", "")) if isinstance(facts, dict) else ""
        return found

    def _life(
        self, info: Mapping[str, Any], mode: str, entry_id: str, number: int | None
    ) -> GroupLife:
        group = info["name"]
        place = self._client.hgetall(self._beside(group, "position"))
        settled = self._client.hgetall(self._beside(group, "settled"))
        owner = (self._client.get(self._beside(group, "lease")) or "").split("/")[0]
        position = _entry_id(place.get("id", "")) or info["last-delivered-id"]
        pending = self._client.xpending_range(self._key, group, entry_id, entry_id, 1)
        again, dead = self._letter(group, "again", entry_id), self._letter(group, "dead", entry_id)
        worker, deliveries, idle_ms = owner, 0, None
        if pending:
            progress = Progress.PENDING
            worker, deliveries = pending[0]["consumer"], pending[0]["times_delivered"]
            idle_ms = pending[0]["time_since_delivered"]
        elif again is not None:
            progress = Progress.SENT_BACK
        elif dead is not None:
            progress = Progress.DEAD
        elif place.get("trying") == entry_id:
            progress, deliveries = Progress.IN_HAND, _count(place, "tries")
        elif EntryId.parse(entry_id) > EntryId.parse(position):
            progress = Progress.AHEAD
        else:
            progress = Progress.SETTLED
        missed = _count(place, "missed") + _count(settled, "missed")
        results = tuple(self._results(group, entry_id, number))
        return GroupLife(
            group, mode, progress, position, worker, deliveries, idle_ms, missed, again or dead,
            results,
        )  # fmt: skip

    def _letter(self, group: str, part: str, entry_id: str) -> Letter | None:
        """The newest dead letter of the entry."""
        last = "+"
        while True:
            page = self._client.execute_command(
                "XREVRANGE", self._beside(group, part), last, "-", "COUNT", _PAGE
            )
            for letter_id, flat in page:
                fields = dict(zip(flat[::2], flat[1::2], strict=False))
                if fields.get("entry_id") == entry_id:
                    return Letter(
                        letter_id,
                        _count(fields, "attempts"),
                        fields.get("error", ""),
                        fields.get("at", ""),
                        fields.get("worker", ""),
                    )
            if len(page) < _PAGE:
                return None
            last = f"({page[-1][0]}"

    def _results(self, group: str, entry_id: str, number: int | None) -> Iterator[str]:
        """Sentences on result keys beside the stream that name the entry or include its number."""
        main = self._beside(group, "").removesuffix(":")
        found = self._client.scan_iter(match=_literal(main) + "*", count=_PAGE)
        for key in sorted(one for one in found if one == main or one.startswith(main + ":")):
            if key[len(main) + 1 :] in _KIT:
                continue
            kind = self._client.type(key)
            if kind == "stream":
                if self._client.execute_command("XRANGE", key, entry_id, entry_id):
                    yield f"{key} has an entry with this ID"
            elif kind == "hash" and self._client.hlen(key) <= _MOST_FIELDS:
                yield from _in_hash(key, self._client.hgetall(key), entry_id, number)

    def _beside(self, group: str, part: str) -> str:
        prefix = self._key.removesuffix(self._stream)
        named = self._stream if tag_of(prefix) else f"{{{self._key}}}"
        return f"{prefix}consumers:{named}:{group}:{part}"


def _in_hash(
    key: str, fields: Mapping[str, str], entry_id: str, number: int | None
) -> Iterator[str]:
    for name, text in fields.items():
        if text == entry_id:
            yield f"{key} names it in {name}"
    first = whole_number(fields.get("first_trade_id", ""))
    last = whole_number(fields.get("last_trade_id", ""))
    if number is None or first is None or last is None:
        return
    if first <= number <= last:
        yield f"{key} was made of the trades {first} to {last}, this one among them"


def _entry_id(text: str) -> str:
    """The text if it is an entry ID, else an empty text."""
    ms, _, seq = text.partition("-")
    return "" if None in (whole_number(ms), whole_number(seq)) else text


def _count(fields: Mapping[str, str], name: str) -> int:
    """A counter; 0 where it is missing or no whole number."""
    return whole_number(fields.get(name, "")) or 0


def _literal(text: str) -> str:
    """The text as a glob pattern that matches only itself."""
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in text)
