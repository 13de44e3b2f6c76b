"""A consumer that has something to write although nothing comes."""

import pytest

from bridge.contract.events import Trade
from consumers import Consumer, Delivery, Results, State
from consumers.lease import Lease
from consumers.meter import Meter
from consumers.owned import Owned
from consumers.results import Write


class Slow(Consumer):
    """Writes when told that it is time."""

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


def owned(answer: object) -> Owned:
    consumer = Slow()
    consumer.answer = answer
    one = Owned(Lease("trade.SOL_USDC", 1, "5-0"), Slow, lambda: consumer, Meter(lambda: 0), "w")
    one.begin(State())
    return one


async def test_what_is_due_is_committed_at_the_same_position() -> None:
    one = owned(answer=True)
    await one.write_if_due()
    assert one.commit is not None
    assert (one.commit.expected, one.commit.position, one.commit.handled) == ("5-0", "5-0", 0)
    assert list(one.commit.writes) == [Write("SET", "", ("written",))]


@pytest.mark.parametrize("stopping", [False, True])
async def test_what_is_not_due_waits_for_the_end(stopping: bool) -> None:
    one = owned(answer=False)
    await one.write_if_due(stopping=stopping)
    assert (one.commit is not None) is stopping


async def test_a_commit_that_waits_for_its_answer_is_not_replaced() -> None:
    one = owned(answer=True)
    one.doubt()
    waiting = one.commit
    await one.write_if_due()
    assert one.commit is waiting


async def test_one_that_fails_is_set_aside_for_a_while_like_a_handler() -> None:
    one = owned(answer=ValueError("no"))
    await one.write_if_due()
    assert (one.commit, one.is_reading, one.failures) == (None, False, 1)
