"""Tools to test your own consumers: given these events, expect these results. Needs no server.

    def test_the_high_of_a_minute_is_its_highest_price() -> None:
        trades, trial = EventFactory("SOL_USDC"), Trial(Candles, "trade.SOL_USDC", intervals="1m")
        trial.deliver(trades.trade("98.96"), trades.trade("99.10"), trades.trade("98.70"))
        assert trial.hash("1m")["high"] == "99.10"

An `EventFactory` makes a stream's entries, with IDs and times like the bridge's. A `Trial` is a
worker with one stream and an in-process Redis (the extra `testing`): entries go through the kit's
own runner, and results and positions through its own scripts. `take_over` and `crash_after`
simulate the death of a worker.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from importlib import import_module
from itertools import takewhile
from typing import Any, cast

from bridge.contract.entry import encode, field_names
from bridge.contract.events import Event
from bridge.errors import ConfigError
from bridge.runtime.time_range import BEGINNING
from consumers.kit.api.consumer import Consumer, ConsumerSpec, StopWorker, joined_by
from consumers.kit.api.results import State
from consumers.kit.api.timers import Tick, tick_ms, timers_of
from consumers.kit.event_factory import EventFactory, StreamEntry
from consumers.kit.handling.batch import BatchRunner, Part
from consumers.kit.handling.entry import Entry, JoinedEntry, entry_of, stream_of
from consumers.kit.handling.failure import HandlerFailed
from consumers.kit.handling.yielding import Pace
from consumers.kit.ordered.joined_streams import PREFIX, merge_time
from consumers.kit.ordered.lease import Answer, Commit, CommitStatus, Lease, Leases, Move
from consumers.kit.redis.keys import Keys
from consumers.kit.shared.group import Group, Unit, UnitKind
from consumers.kit.shared.timers import NAME as TIMERS
from consumers.kit.stats import Stats

__all__ = ["EventFactory", "StreamEntry", "Trial"]

_LEASE_MS = 3_600_000  # longer than any trial: the lease never expires


class Trial:
    """One worker of a consumer, with its streams. Options as on the command line.

    With several streams each event goes to the stream of its symbol (and type); a joined consumer
    gets events in the order of their times, a shared one in the given order. Results are stored
    under the first stream, or under the join key.

    A failed batch is retried by the next call, as a worker would do it: in ordered mode by a new
    object, made from the state in Redis. Use it in plain tests; in a running event loop, `await`
    the methods that end in `_async`.
    """

    def __init__(self, kind: type[Consumer], *streams: str, **options: str) -> None:
        fake = _fakeredis()
        shape = {"server": fake.FakeServer(), "decode_responses": True, "protocol": 2}
        if not streams or (len(streams) > 1 and kind.mode == "ordered"):
            raise ConfigError("a Trial needs a stream, and of an ordered consumer no second one")
        self.streams = streams
        self.stream = streams[0]  # its keys hold state and results
        self.redis = fake.FakeRedis(**shape)
        self._is_ordered = kind.mode != "shared"
        self._is_joined = kind.mode == "joined"
        self._name = kind.name
        self._spec = ConsumerSpec(kind, options)
        self._client = fake.FakeAsyncRedis(**shape)
        self._keys = Keys()
        self._stats = Stats(lambda: 0)
        self._group = Group(self._client, self._keys, kind.name, "trial")
        self._leases = self._leases_of_worker(1)
        self._workers = 1
        self._lease: Lease | None = None
        self._position = BEGINNING
        self._runner: BatchRunner | None = None
        self._is_used = False  # whether a runner has used the consumer object
        self._waiting: list[JoinedEntry] = []  # given to `deliver`, and not handled yet
        self._cursors: dict[str, str] = {}  # of joined streams
        self._ticks: dict[str, int] = {}
        self.consumer = self._spec.build()
        if self._is_joined:
            keys = {joined_by(self.consumer, stream) for stream in streams}
            if len(keys) > 1:
                raise ConfigError(f"joined_by parts these streams: {', '.join(sorted(keys))}")
            self.stream = PREFIX + keys.pop()
        for stream in streams:
            self.redis.xgroup_create(self._keys.stream(stream), kind.name, BEGINNING, mkstream=True)

    def deliver(self, *given: StreamEntry, at_once: int | None = None) -> None:
        """Append these entries and deliver them: in one batch, or in batches of `at_once`.

        Raises the handler's exception: then nothing of that batch is in Redis, and the next call
        delivers it again. Raises AssertionError if Redis refuses the results.
        """
        _run(self.deliver_async(*given, at_once=at_once))

    def idle(self, *, stopping: bool = False) -> None:
        """Simulate an idle worker: `write` if `due`. With `stopping`, the worker ends cleanly."""
        _run(self.idle_async(stopping=stopping))

    def tick(self, at: str) -> None:
        """Set the time to `at` (ISO text, UTC): every timer that has become due since its last call
        is called once, as by a worker that has read all entries; so is one never called before."""
        _run(self.tick_async(at))

    def take_over(self) -> None:
        """Let another worker take over from the state in Redis."""
        _run(self.take_over_async())

    def crash_after(self, *given: StreamEntry) -> None:
        """Handle these entries, then die before the commit: another worker gets them again."""
        _run(self.crash_after_async(*given))

    async def deliver_async(self, *given: StreamEntry, at_once: int | None = None) -> None:
        """`deliver`, in an event loop."""
        self._append(given)
        runner = await self._begin()
        while self._waiting:
            batch = self._batch(at_once or len(self._waiting))
            part = await self._handle(runner, batch)
            await self._commit(part)
            del self._waiting[: len(part.entries)]

    async def idle_async(self, *, stopping: bool = False) -> None:
        """`idle`, in an event loop."""
        runner = await self._begin()
        try:
            is_due = await runner.is_due(self.stream, stopping=stopping)
        except HandlerFailed as failed:
            raise self._failure(failed) from None
        if is_due:
            await self._commit(await self._handle(runner, ()))

    async def tick_async(self, at: str) -> None:
        """`tick`, in an event loop."""
        runner = await self._begin()
        now_ms = int(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp() * 1000)
        for name, interval_ms in timers_of(type(self.consumer)).items():
            at_ms = tick_ms(now_ms, interval_ms)
            if at_ms <= self._ticks.get(name, -1):
                continue
            part = await runner.run_tick(name, Tick(self.consumer_stream, at_ms * 1000))
            if part.failed is not None:
                raise self._failure(part.failed) from None
            await self._commit(part)
            self._ticks[name] = at_ms

    async def take_over_async(self) -> None:
        """`take_over`, in an event loop."""
        if self._lease is not None:
            await self._leases.release([self._lease])
        self._workers += 1
        self._leases = self._leases_of_worker(self._workers)
        self._lease = self._runner = None
        await self._begin()

    async def crash_after_async(self, *given: StreamEntry) -> None:
        """`crash_after`, in an event loop."""
        self._append(given)
        await self._handle(await self._begin(), self._batch(len(self._waiting)))
        await self.take_over_async()
        await self.deliver_async()

    def hash(self, part: str = "") -> dict[str, str]:
        """The fields of a result hash."""
        return cast("dict[str, str]", self.redis.hgetall(self.key(part)))

    def entries(self, part: str) -> list[tuple[str, dict[str, str]]]:
        """The entries of a derived stream: IDs and fields."""
        return cast("list[tuple[str, dict[str, str]]]", self.redis.xrange(self.key(part)))

    def key(self, part: str = "", stream: str = "") -> str:
        """The key of a result in `redis`, for types without a method here; `stream` names another
        stream than the first, or is `timers` for results of a shared consumer's timers."""
        return self._keys.beside(stream or self.stream, self._name, part)

    @property
    def consumer_stream(self) -> str:
        """The attribute `stream` of a consumer object; empty in shared mode."""
        return self.stream.removeprefix(PREFIX) if self._is_ordered else ""

    def _append(self, given: Sequence[StreamEntry]) -> None:
        for entry_id, event in given:
            fields = dict(zip(field_names(type(event)), encode(event), strict=True))
            stream = self._stream_of(event)
            self.redis.xadd(self._keys.stream(stream), fields, id=entry_id)
            self._waiting.append(JoinedEntry.of(stream, entry_of(entry_id, fields)))
        if self._is_joined:
            self._waiting.sort(key=merge_time)

    def _stream_of(self, event: Event) -> str:
        if len(self.streams) == 1:
            return self.streams[0]
        kind, symbol = getattr(event, "type", ""), getattr(event, "symbol", "")
        of_symbol = [one for one in self.streams if one.endswith(f".{symbol}")]
        streams = [one for one in of_symbol if one.startswith(f"{kind}.")] or of_symbol
        if len(streams) != 1:
            raise ValueError(
                f"{kind} of {symbol!r} fits {len(streams)} streams of this trial: it must fit one"
            )
        return streams[0]

    def _batch(self, entries: int) -> Sequence[Entry]:
        """The next entries that are delivered together: in shared mode those of one stream."""
        batch = self._waiting[:entries]
        if self._is_ordered:
            return batch
        return list(takewhile(lambda one: one.stream == batch[0].stream, batch))

    async def _begin(self) -> BatchRunner:
        """The runner in use, or a new one: in ordered mode with an object that owns the stream and
        has the state saved with the position."""
        if self._runner is not None:
            return self._runner
        if self._is_used:
            self.consumer = self._spec.build()
        self._is_used = True
        if not self._is_ordered:
            await self._group.join(dict.fromkeys(self.streams, (BEGINNING, "")))
            self._runner = BatchRunner(self.consumer, self._stats)
            return self._runner
        if self._lease is None:
            self._lease = await self._leases.acquire(
                self.stream, BEGINNING, is_stream=not self._is_joined
            )
            assert self._lease is not None
            self._position = self._lease.position
            self._ticks = await self._leases.ticks(self.stream)
            if self._is_joined:
                starts = dict.fromkeys(self.streams, BEGINNING)
                self._cursors = await self._leases.join_streams(self._lease, starts) or {}
        state = State(await self._leases.state(self.stream))
        try:
            self._runner = await BatchRunner.open(
                self.consumer, self.consumer_stream, self._lease.token, state, self._stats
            )
        except HandlerFailed as failed:
            raise self._failure(failed) from None
        return self._runner

    async def _handle(self, runner: BatchRunner, entries: Sequence[Entry]) -> Part:
        try:
            part = await runner.run_together(self.stream, entries, Pace())
        except StopWorker:
            self._let_go()
            raise
        if part.failed is not None:
            raise self._failure(part.failed) from None
        return part

    async def _commit(self, part: Part) -> None:
        refused = await (self._settle(part) if self._lease is None else self._move(part))
        if refused:
            self._let_go()
            raise AssertionError(f"the results could not be written: {refused}")
        if self._runner is not None:
            self._runner.state.confirm()

    async def _settle(self, part: Part) -> str:
        """Shared: acknowledge. Returns the reason of a refusal by Redis; empty if there is none."""
        if not part.entries:
            return await self._settle_tick(part)
        stream = stream_of(part.entries[0], self.stream)
        await self._group.read([stream], len(part.entries), None)
        unit = Unit(UnitKind.ACK, [entry_id for entry_id, _ in part.entries], part.writes)
        settled = (await self._group.settle({stream: [unit]}))[stream]
        return "".join(str(answer) for answer in settled.answers if answer != 1)

    async def _settle_tick(self, part: Part) -> str:
        """Shared: commit a timer's writes, under the timers' own lease. Returns as `_settle`."""
        if not part.writes:
            return ""
        lease = await self._leases.acquire(TIMERS, BEGINNING, is_stream=False)
        assert lease is not None
        [answer] = await self._leases.commit(
            [Commit(lease, lease.position, lease.position, 0, part.writes)]
        )
        is_ok = isinstance(answer, Answer) and answer.status is CommitStatus.OK
        return "" if is_ok else str(answer)

    async def _move(self, part: Part) -> str:
        """Ordered: commit. Returns the reason of a refusal by Redis; empty if there is none."""
        assert self._lease is not None
        position = part.entries[-1][0] if part.entries else self._position
        moved = {stream_of(entry, self.stream): entry[0] for entry in part.entries}
        commit = Commit(self._lease, self._position, position, len(part.entries), part.writes)
        if self._is_joined:
            self._cursors |= moved
            moves = [Move(stream, at, 0) for stream, at in self._cursors.items()]
            position, commit = self._position, commit._replace(moves=moves)
        [answer] = await self._leases.commit([commit])
        if not isinstance(answer, Answer) or answer.status is not CommitStatus.OK:
            return str(answer)
        self._position = position
        return ""

    def _failure(self, failed: HandlerFailed) -> BaseException:
        """The exception of the consumer's code, for the caller to raise."""
        self._let_go()
        return failed.reason

    def _let_go(self) -> None:
        """Ordered: drop the object, which may be half-way through a batch; the next one is made
        from the state in Redis. In shared mode a worker keeps its one object."""
        if self._is_ordered:
            self._runner = None

    def _leases_of_worker(self, number: int) -> Leases:
        return Leases(self._client, self._keys, self._name, f"trial-{number}", _LEASE_MS)


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:
        work.close()
        raise RuntimeError("a loop runs here: await the method that ends in _async")


def _fakeredis() -> Any:
    try:
        import_module("lupa")
        return import_module("fakeredis")
    except ImportError:
        raise ConfigError(
            "a Trial needs fakeredis with its Lua: pip install 'backpack-bridge[testing]'"
        ) from None
