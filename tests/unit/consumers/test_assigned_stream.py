"""`AssignedStream` with a consumer whose `due` requests a write without entries."""

import pytest
from redis.asyncio import Redis

from bridge.contract.events import Trade
from consumers import Consumer, Delivery, Results
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.api.results import Write
from consumers.kit.ordered.assigned_stream import AssignedStream
from consumers.kit.ordered.lease import Lease, Leases
from consumers.kit.redis.keys import Keys
from consumers.kit.stats import Stats


class Slow(Consumer):
    """A consumer whose `due` returns, or raises, `answer`."""

    name = "slow"
    streams = ("trade.*",)
    mode = "ordered"
    answer: object = False

    def on_trade(self, delivery: Delivery[Trade]) -> None: ...

    def due(self, *, stopping: bool) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return bool(self.answer) or stopping

    def write(self, results: Results) -> None:
        results.set("", "written")


async def assigned(answer: object) -> AssignedStream:
    spec = ConsumerSpec(type("Told", (Slow,), {"answer": answer}))
    one = AssignedStream(Lease("trade.SOL_USDC", 1, "5-0"), spec, Stats(lambda: 0), "w")
    await one.begin({})
    return one


async def test_assigned_stream_commits_due_writes_at_the_same_position() -> None:
    one = await assigned(answer=True)
    await one.write_if_due()
    assert one.commit is not None
    assert (one.commit.expected, one.commit.position, one.commit.handled) == ("5-0", "5-0", 0)
    assert list(one.commit.writes) == [Write("SET", "", ("written",))]


@pytest.mark.parametrize("stopping", [False, True])
async def test_assigned_stream_writes_what_is_not_due_only_when_stopping(stopping: bool) -> None:
    one = await assigned(answer=False)
    await one.write_if_due(stopping=stopping)
    assert (one.commit is not None) is stopping


async def test_assigned_stream_keeps_a_commit_in_flight_when_something_is_due() -> None:
    one = await assigned(answer=True)
    one.probe()
    waiting = one.commit
    await one.write_if_due()
    assert one.commit is waiting


async def test_assigned_stream_pauses_when_due_fails() -> None:
    one = await assigned(answer=ValueError("no"))
    await one.write_if_due()
    assert (one.commit, one.is_reading, one.failures) == (None, False, 1)


def test_leases_outlast_the_longest_call_that_lost_its_stream() -> None:
    leases = Leases(Redis(), Keys(), "g", "w", 500)

    for call_s in (1.5, 0.7):
        leases.outlast(call_s)
        assert leases.lease_ms == 2000

    [(_, arguments)] = leases.renewals([Lease("trade.SOL_USDC", 1, "5-0")])
    assert arguments == ("w", 1, 2000)
