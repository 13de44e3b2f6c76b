"""For the tests of your own consumers: given these events, expect these results. No server needed.

    def test_the_high_of_a_minute_is_its_highest_price() -> None:
        tape, trial = Tape("SOL_USDC"), Trial(Candles, "trade.SOL_USDC", intervals="1m")
        trial.give(tape.trade("98.96"), tape.trade("99.10"), tape.trade("98.70"))
        assert trial.hash("1m")["high"] == "99.10"

A `Tape` makes a stream's entries, numbered and timed as the bridge would. A `Trial` is a worker
with one stream in hand and a Redis inside the test (the extra `testing`): entries go through the
kit's own dispatcher, and results and positions through its own scripts. `take_over` and
`crash_after` are what a dying worker does to a consumer.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from importlib import import_module
from typing import Any, cast

from bridge.contract.entry import encode, field_names
from bridge.errors import ConfigError
from consumers.consumer import Consumer, build
from consumers.dispatch import Dispatcher, Entry, HandlerFailed
from consumers.group import Group, Unit
from consumers.keys import Keys
from consumers.lease import Answer, Commit, Lease, Leases
from consumers.meter import Meter
from consumers.policy import BEGINNING
from consumers.results import Results, State
from consumers.tape import Given, Tape

__all__ = ["Given", "Tape", "Trial"]

_LEASE_MS = 3_600_000  # a trial has all the time it wants


class Trial:
    """One stream in the hands of one worker of a consumer. Options as on the command line.

    Use it in plain tests; where a loop runs already, `await` what ends in `_async`.
    """

    def __init__(self, kind: type[Consumer], stream: str, **options: str) -> None:
        fake = _fakeredis()
        shape = {"server": fake.FakeServer(), "decode_responses": True, "protocol": 2}
        self.kind = kind
        self.stream = stream
        self.redis = fake.FakeRedis(**shape)
        self._client = fake.FakeAsyncRedis(**shape)
        self._keys = Keys()
        self._options = options
        self._workers = 0
        self._lease: Lease | None = None
        self._position = BEGINNING
        self.consumer = build(kind, options)
        self.redis.xgroup_create(self._keys.stream(stream), kind.name, BEGINNING, mkstream=True)

    def give(self, *given: Given, at_once: int | None = None) -> None:
        """Append these entries and hand them over: in one batch, or so many at once.

        What a handler raises comes out here, and nothing of that batch is in Redis then.
        """
        _run(self.give_async(*given, at_once=at_once))

    def rest(self, *, stopping: bool = False) -> None:
        """Nothing comes: what is due is written; `stopping`: the worker ends cleanly."""
        _run(self.rest_async(stopping=stopping))

    def take_over(self) -> None:
        """The worker is gone; another one goes on from what is in Redis."""
        _run(self.take_over_async())

    def crash_after(self, *given: Given) -> None:
        """The worker handles these and dies before that counts; another one gets them again."""
        _run(self.crash_after_async(*given))

    async def give_async(self, *given: Given, at_once: int | None = None) -> None:
        """`give`, on a loop."""
        entries = self._append(given)
        await self._begin()
        for batch in _batches(entries, at_once or len(entries)):
            await self._commit(batch, await self._handled(batch))

    async def rest_async(self, *, stopping: bool = False) -> None:
        """`rest`, on a loop."""
        await self._begin()
        if self.kind.mode == "ordered" and self.consumer.due(stopping=stopping):
            await self._commit((), await self._handled(()))

    async def take_over_async(self) -> None:
        """`take_over`, on a loop."""
        if self._lease is not None:
            await self._leases().release([self._lease])
        self._lease, self.consumer = None, build(self.kind, self._options)
        await self._begin()

    async def crash_after_async(self, *given: Given) -> None:
        """`crash_after`, on a loop."""
        entries = self._append(given)
        await self._begin()
        await self._handled(entries)
        await self.take_over_async()
        await self._commit(entries, await self._handled(entries))

    def hash(self, part: str = "") -> dict[str, str]:
        """A hash among the results."""
        return cast("dict[str, str]", self.redis.hgetall(self.key(part)))

    def entries(self, part: str) -> list[tuple[str, dict[str, str]]]:
        """A derived stream among the results: IDs and fields."""
        return cast("list[tuple[str, dict[str, str]]]", self.redis.xrange(self.key(part)))

    def key(self, part: str = "") -> str:
        """The key of a result in `redis`, for what the other methods do not show."""
        return self._keys.beside(self.stream, self.kind.name, part)

    def _append(self, given: Sequence[Given]) -> list[Entry]:
        entries = []
        for entry_id, event in given:
            fields = dict(zip(field_names(type(event)), encode(event), strict=True))
            self.redis.xadd(self._keys.stream(self.stream), fields, id=entry_id)
            entries.append((entry_id, fields))
        return entries

    async def _begin(self) -> None:
        """Shared: join the group. Ordered: own the stream, and make the consumer of what was saved
        with the position."""
        if self.kind.mode == "shared":
            await self._group().join({self.stream: (BEGINNING, "")})
        if self.kind.mode == "shared" or self._lease is not None:
            return
        self._workers += 1
        self._lease = lease = await self._leases().acquire(self.stream, BEGINNING)
        assert lease is not None
        self._position = lease.position
        self.consumer.stream, self.consumer.token = self.stream, lease.token
        self.consumer.state = State(await self._leases().state(self.stream))
        self.consumer.load()

    async def _handled(self, entries: Sequence[Entry]) -> Results:
        dispatcher = Dispatcher(self.consumer, Meter(lambda: 0))
        results = Results(in_order=self.kind.mode == "ordered")
        try:
            await dispatcher.handle(self.stream, entries, results)
        except HandlerFailed as failed:
            raise cast("Exception", failed.__cause__) from None
        if self.kind.mode == "ordered":
            self.consumer.write(results)
        return results

    async def _commit(self, entries: Sequence[Entry], results: Results) -> None:
        if self._lease is None:
            await self._group().read([self.stream], len(entries) or 1, None)
            unit = Unit("ack", [entry_id for entry_id, _ in entries], results.writes)
            settled = await self._group().settle({self.stream: [unit] if entries else []})
            refused = [one for of in settled.values() for one in of.answers if one != 1]
            if refused:
                raise AssertionError(f"the results could not be written: {refused[0]}")
            return
        position = entries[-1][0] if entries else self._position
        writes = (*results.writes, *self.consumer.state.take_writes("state"))
        commit = Commit(self._lease, self._position, position, len(entries), writes)
        [answer] = await self._leases().commit([commit])
        if not isinstance(answer, Answer) or answer.word != "ok":
            raise AssertionError(f"the results could not be written: {answer}")
        self._position = position

    def _group(self) -> Group:
        return Group(self._client, self._keys, self.kind.name, "trial")

    def _leases(self) -> Leases:
        worker = f"trial-{self._workers}"
        return Leases(self._client, self._keys, self.kind.name, worker, _LEASE_MS)


def _batches(entries: Sequence[Entry], size: int) -> Iterator[Sequence[Entry]]:
    for i in range(0, len(entries), max(1, size)):
        yield entries[i : i + size]


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
