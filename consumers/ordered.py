"""The loop of ordered mode: each stream in the hands of one worker, in order, exactly.

Read by cursor (XREAD needs no pending lists), handle, commit: results, state and position move in
one fenced script. Live workers share the streams evenly. What Redis answered to a commit decides;
where it did not answer, the same commit is sent again: it is applied once or refused.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from consumers.consumer import Consumer, StopWorker
from consumers.crew import Crew
from consumers.dispatch import Entry, HandlerFailed
from consumers.keys import Keys
from consumers.lease import Answer, Leases
from consumers.link import Link, Stop
from consumers.meter import Meter
from consumers.owned import COMMIT_EVERY_S, Owned
from consumers.policy import batch_size, block_ms, chunks, fair_share, moves, start_of

_log = structlog.get_logger()
_CONNECTION = "entries"

LETTERS_EVERY_S = 2.0
COMMIT_ENTRIES = 500  # commits are sent together once so many entries are handled
_IDLE_S = 0.2  # until the next look for streams, where none are owned
_SERVER_TROUBLE = (RedisConnectionError, ReadOnlyError, OutOfMemoryError)


class OrderedLoop:
    """One worker's streams."""

    def __init__(
        self,
        kind: type[Consumer],
        build: Callable[[], Consumer],
        redis: Redis,
        keys: Keys,
        leases: Leases,
        crew: Crew,
        meter: Meter,
        link: Link,
        *,
        start: str,
        random: Random,
    ) -> None:
        self._kind = kind
        self._build = build
        self._redis = redis
        self._keys = keys
        self._leases = leases
        self._crew = crew
        self._meter = meter
        self._link = link
        self._start = start
        self._random = random
        self._owned: dict[str, Owned] = {}
        self._latest: Owned | None = None
        self._letters_at = 0.0
        self._seen_beat = 0
        self._known: frozenset[str] = frozenset()
        self._refused: set[str] = set()

    def made(self) -> str:
        return self._latest.made() if self._latest else ""

    def in_hand(self) -> tuple[str, str] | None:
        return next((o.in_hand for o in self._owned.values() if o.in_hand), None)

    async def keep(self, redis: Redis) -> None:
        """Renew all leases; what was lost meanwhile is looked at before its next batch."""
        mine = list(self._owned.values())
        lost = await self._leases.renew(redis, [owned.lease for owned in mine])
        for owned in mine:
            if owned.lease in lost:
                owned.doubt()

    async def run(self, stop: Stop) -> None:
        """Until told to stop; the batch in hand is finished and committed."""
        while not stop.is_set:
            try:
                await self._round(stop)
            except StopWorker:
                stop.set()
            except RedisError as error:
                # What was made stays in hand: sent again, Redis applies it once or refuses it.
                await self._link.down(_CONNECTION, error, stop)

    async def leave(self) -> None:
        """Clean stop: what is made is committed, and every lease given back."""
        await self._commit(self._owned.values())
        await self._write_what_is_due(stopping=True)
        leases = [owned.lease for owned in self._owned.values()]
        self._owned.clear()
        await self._leases.release(leases)

    async def _round(self, stop: Stop) -> None:
        await self._commit(self._owned.values())  # left from before an outage, or in doubt
        if self._seen_beat != self._crew.beats:
            await self._rebalance()
            self._seen_beat = self._crew.beats
        for owned in self._owned.values():
            if owned.needs_state:
                self._begin(owned, await self._leases.state(owned.stream))
        await self._handle_letters()
        reading = [owned for owned in self._owned.values() if owned.is_reading]
        self._random.shuffle(reading)
        if not reading:
            await stop.wait(_IDLE_S)
        portions = list(chunks(reading))
        more = False
        for portion in portions:
            if not stop.is_set:
                more |= await self._read(portion, block_ms(len(portions)), stop)
        await self._write_what_is_due()
        if self._kind.batch_wait_s and not more:
            await stop.wait(self._kind.batch_wait_s)

    async def _read(self, portion: Sequence[Owned], wait_ms: int, stop: Stop) -> bool:
        """Read, handle, commit. Whether there is more to read at once."""
        by_key = {self._keys.stream(owned.stream): owned for owned in portion}
        at: dict[Any, Any] = {key: owned.position for key, owned in by_key.items()}
        size = batch_size(len(at), self._kind.batch_entries)
        try:
            found: Any = await self._redis.xread(at, size, wait_ms)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            await self._give_back_what_is_no_stream(portion)
            return False
        self._link.up(_CONNECTION)
        handled = 0
        for key, entries in found:
            if stop.is_set:
                break
            handled += await self._handle(by_key[key], entries, is_all=len(entries) < size)
            if handled >= COMMIT_ENTRIES:
                await self._commit(portion)
                handled = 0
        await self._commit(portion)
        return any(len(entries) >= size for _, entries in found)

    async def _write_what_is_due(self, *, stopping: bool = False) -> None:
        """What consumers have to write although nothing has come for them."""
        for owned in self._owned.values():
            await owned.write_if_due(stopping=stopping)
        await self._commit(self._owned.values())

    async def _handle(self, owned: Owned, entries: Sequence[Entry], *, is_all: bool) -> int:
        if owned.commit is not None:  # in doubt since a moment ago
            return 0
        self._latest = owned
        if owned.is_careful:
            last_id = entries[-1][0]
            entries = await self._handle_carefully(owned, entries)
            if not entries:
                if is_all and owned.position == last_id:
                    owned.caught_up()
                return 0
        await owned.handle(entries)
        return len(entries)

    async def _handle_carefully(self, owned: Owned, entries: Sequence[Entry]) -> Sequence[Entry]:
        """One by one, each with its commit, as long as need be; what is left for the usual way."""
        began = time.monotonic()
        for done, entry in enumerate(entries):
            if not owned.is_careful:
                return entries[done:]
            if time.monotonic() - began > COMMIT_EVERY_S:
                return ()  # the rest is read again
            tries = await self._leases.attempt(owned.lease, entry[0])
            if tries:
                await owned.handle_alone(entry, tries)
            else:
                owned.doubt()
            await self._commit([owned])
            if not owned.is_reading or owned.stream not in self._owned:
                return ()
        return ()

    async def _handle_letters(self) -> None:
        """Dead letters that were sent back."""
        if time.monotonic() < self._letters_at:
            return
        self._letters_at = time.monotonic() + LETTERS_EVERY_S
        for stream, letters in (await self._leases.sent_back(list(self._owned))).items():
            for one in letters:
                owned = self._owned.get(stream)
                if owned is None or not owned.is_reading or owned.commit is not None:
                    break
                letter = await self._leases.begin_letter(owned.lease, one)
                if letter is not None:
                    await owned.handle_letter(letter)
                    await self._commit([owned])

    async def _commit(self, of: Iterable[Owned]) -> None:
        """Send what is made and look at each answer. Raises what is the server's own trouble."""
        waiting = [owned for owned in of if owned.commit is not None]
        commits = [owned.commit for owned in waiting if owned.commit is not None]
        answers = await self._leases.commit(commits)
        for owned, answer in zip(waiting, answers, strict=True):
            await self._look_at_answer(owned, answer)

    async def _look_at_answer(self, owned: Owned, answer: Answer | Exception) -> None:
        if isinstance(answer, Answer) and answer.word == "lost":
            answer = await self._commit_again(owned)
        if isinstance(answer, Answer):
            if answer.word == "ok":
                await owned.committed(answer.missed)
            else:
                self._drop(owned)
                _log.info("stream_lost", stream=owned.stream, token=owned.lease.token)
        elif _is_servers(answer):
            raise answer
        else:
            delay_s = owned.refused(str(answer))
            _log.warning("commit_refused", stream=owned.stream, error=str(answer), retry_s=delay_s)

    async def _commit_again(self, owned: Owned) -> Answer | Exception:
        """Redis was emptied: put back position and state, unless another worker was quicker."""
        lease = await self._leases.acquire(owned.stream, owned.position)
        if lease is None or lease.position != owned.position:
            return Answer("stale")
        [answer] = await self._leases.commit([owned.send_again(lease)])
        if isinstance(answer, Answer) and answer.word == "ok":
            _log.warning("position_put_back", stream=owned.stream, position=owned.position)
            owned.begin_anew()
        return answer

    async def _give_back_what_is_no_stream(self, portion: Sequence[Owned]) -> None:
        """One key of another kind fails the read of all: `_take` refuses it from now on."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for owned in portion:
                pipeline.type(self._keys.stream(owned.stream))
            kinds = await pipeline.execute()
        for owned, kind in zip(portion, kinds, strict=True):
            if kind not in ("stream", "none"):
                await self._leases.release([owned.lease])
                self._drop(owned)

    def _begin(self, owned: Owned, saved: Mapping[str, str]) -> None:
        try:
            owned.begin(saved)
        except HandlerFailed as failed:
            failed.tell(owned.failures, owned.pause())

    async def _rebalance(self) -> None:
        crew = self._crew
        share = fair_share(len(crew.streams), crew.alive, crew.worker)
        plan = moves(self._owned, crew.streams, share, self._random)
        released = [self._owned[stream] for stream in plan.release]
        await self._leases.release([owned.lease for owned in released])
        for owned in released:
            self._drop(owned)
            _log.info("stream_released", stream=owned.stream)
        room = plan.room
        if crew.may_take:
            for stream in await self._leases.free(plan.take):
                if room and await self._take(stream):
                    room -= 1
            self._known |= frozenset(crew.streams)

    async def _take(self, stream: str) -> bool:
        is_new = self._seen_beat > 0 and stream not in self._known
        try:
            lease = await self._leases.acquire(stream, start_of(self._start, found_later=is_new))
        except ResponseError as error:  # not a stream, for one
            if stream not in self._refused:
                self._refused.add(stream)
                _log.warning("stream_unusable", stream=stream, error=str(error))
            return False
        if lease is None:
            return False
        self._owned[stream] = Owned(lease, self._kind, self._build, self._meter, self._crew.worker)
        _log.info("stream_taken", stream=stream, token=lease.token, position=lease.position)
        return True

    def _drop(self, owned: Owned) -> None:
        self._owned.pop(owned.stream, None)
        self._meter.forget(owned.stream)


def _is_servers(error: Exception) -> bool:
    """Whether the server refuses all writes now, not this one. (Before Redis 7 what a script met
    stands in the middle of its error.)
    """
    text = str(error)
    return (
        isinstance(error, _SERVER_TROUBLE)
        or text.startswith("MISCONF")
        or "-OOM command not allowed" in text
        or "-READONLY" in text
    )
