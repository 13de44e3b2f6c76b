"""The tests' Redis in memory against a real server, with another program's entries in between."""

import redis
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.causes import GapCause
from bridge.core.entries import Slot, sequenced_gap, slot_of
from bridge.core.queue import Batch
from bridge.redis.append import SCRIPT, UNLIMITED, pack, pack_append
from tests.support.examples import examples
from tests.support.memory_server import MemoryServer
from tests.support.queues import content, sequenced
from tests.support.slots import NOW_US, delta, order, snapshot
from tests.support.stepped_bridge import RedisSocket

KEY = "depth.SOL_USDC"
MS = NOW_US // 1000

moments = st.sampled_from([-2_000_000, -1_000, 0, 0, 1_000, 5_000])  # offset from now, µs
numbers = st.integers(1, 12)
messages = st.builds(
    lambda number, width, at_us: delta(max(1, number - width), number, NOW_US + at_us),
    numbers,
    st.integers(0, 2),
    moments,
)
snapshots = st.builds(snapshot, numbers)
# number, whether the expected ID matches, time offset
gaps = st.tuples(numbers, st.booleans(), moments)
events = st.builds(lambda name, at_us: order(str(name), NOW_US + at_us), numbers, moments)
foreign = st.tuples(st.integers(1, 12), st.sampled_from([{"a": "b"}, {"type": "depth"}]))

sequenced_steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(messages | snapshots | gaps, max_size=5)),
        st.tuples(st.just("foreign"), foreign),
        st.tuples(st.just("delete"), st.just(())),
    ),
    max_size=25,
)
content_steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(events, min_size=1, max_size=5), st.booleans()),
        st.tuples(st.just("foreign"), foreign, st.just(True)),
    ),
    max_size=15,
)


class Pair:
    """One stream in both servers."""

    def __init__(self, client: redis.Redis) -> None:
        client.flushall()
        client.script_load(SCRIPT.decode())
        self.client = client
        self.socket = RedisSocket(client)
        self.memory = MemoryServer()

    def close(self) -> None:
        self.socket.close()

    def append(self, batch: Batch) -> None:
        packed = pack_append([(KEY.encode(), UNLIMITED, batch)])
        assert self.memory.call(packed, 1) == self.socket.call(packed, 1)

    def add_foreign(self, count: int, fields: dict[str, str]) -> None:
        """Add entries under the IDs that the server in memory chooses, since the clocks differ."""
        for _ in range(count):
            self.memory.xadd(KEY, fields, MS + 1_000)
            self.client.xadd(KEY, fields, id=self.memory.last(KEY))  # type: ignore[arg-type]

    def delete_newest(self) -> None:
        if newest := self.client.xrevrange(KEY, count=1):
            self.client.xdel(KEY, newest[0][0])
            self.memory.delete_newest(KEY)

    def check(self) -> None:
        packed = pack("XRANGE", KEY, "-", "+")
        assert self.memory.call(packed, 1) == self.socket.call(packed, 1)


def gap(pair: Pair, number: int, is_expected: bool, at_us: int) -> Slot:
    waiting = delta(number + 1, number + 1, NOW_US + at_us)
    last = pair.memory.last(KEY) if is_expected else "7-7"
    entry = sequenced_gap(waiting, symbol="S", last=last, from_=None, cause=GapCause.SKIPPED)
    return slot_of(entry, 0, NOW_US)


@examples(6)
@given(steps=sequenced_steps)
def test_memory_server_answers_sequenced_batches_as_the_script_does(
    redis_url: str, steps: list[tuple[str, object]]
) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    pair, queue = Pair(client), sequenced()
    try:
        for what, argument in steps:
            if what == "append":
                slots = [
                    gap(pair, *each) if isinstance(each, tuple) else each
                    for each in argument  # type: ignore[attr-defined]
                ]
                pair.append(Batch(queue, slots))
            elif what == "foreign":
                pair.add_foreign(*argument)  # type: ignore[misc]
            else:
                pair.delete_newest()
        pair.check()
    finally:
        pair.close()
        client.close()


@examples(4)
@given(steps=content_steps)
def test_memory_server_answers_content_batches_as_the_script_does(
    redis_url: str, steps: list[tuple[str, list[Slot], bool]]
) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    pair, queue = Pair(client), content()
    try:
        for what, argument, is_expected in steps:
            if what == "append":
                expected = pair.memory.last(KEY) if is_expected else "7-7"
                pair.append(Batch(queue, argument, expected))
            else:
                pair.add_foreign(*argument)
        pair.check()
    finally:
        pair.close()
        client.close()
