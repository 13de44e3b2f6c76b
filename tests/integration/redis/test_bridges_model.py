"""Random runs of several bridges with the real publishing cycle, a real Redis and a simulated
clock.
"""

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.bridges_model import BOOKS, ORDERS, SECOND_US, TRADES, Member, Model
from tests.support.examples import examples

pytestmark = pytest.mark.timeout(300)
STEPS = 120
seeds = st.integers(0, 2**32)


@pytest.fixture
def url(redis_url: str) -> str:
    return redis_url


def run(model: Model, *, loss: float, faults: tuple[str, ...], lost_replies: float) -> None:
    """Send, receive, publish and report for STEPS steps, with at most one fault at a time."""
    beaten_us = model.now_us
    for _ in range(STEPS):
        model.send(loss)
        if model.chance.random() < 0.7:
            model.work(lost_replies)
        if model.now_us - beaten_us >= SECOND_US:
            beaten_us = model.now_us
            model.beat_all()
        if model.chance.random() < 0.08 and faults:
            go_wrong(model, model.chance.choice(faults), model.chance.choice(model.members))
    model.come_to_rest()


def go_wrong(model: Model, fault: str, member: Member) -> None:
    others_are_well = all(model.is_well(other) for other in model.members if other is not member)
    if fault == "kill" and member.receives:
        model.restart(member)
    elif fault == "both stall" or (fault == "stall" and (member.stalled or others_are_well)):
        member.stalled = not member.stalled
    elif fault == "cut" and not member.receives:
        model.connect(member)
    elif fault == "both cut" or (fault == "cut" and others_are_well):
        model.cut(member) if member.receives else model.connect(member)


@pytest.mark.parametrize(("loss", "faults"), [(0.02, ("cut",)), (0.0, ("stall", "cut"))])
@examples(3)
@example(seed=367)  # a bridge is cut before another one reports that it receives again
@given(seed=seeds)
def test_two_bridges_with_one_healthy_store_all_received_messages_once_without_a_gap(
    url: str, loss: float, faults: tuple[str, ...], seed: int
) -> None:
    model = Model(url, Random(seed))
    try:
        run(model, loss=loss, faults=faults, lost_replies=0.03)

        assert list(model.faults()) == []
        assert model.gaps(ORDERS) == []
        assert model.numbers(ORDERS, "order_id") == set(model.made[ORDERS])
        there = model.numbers(TRADES, "trade_id")
        received = {number for stream, number in model.received if stream == TRADES}
        assert there == {number for number in received if number >= min(there, default=0)}
        assert max(model.numbers(BOOKS, "update_id"), default=0) == len(model.made[BOOKS])
    finally:
        model.close()


@examples(3)
@given(seeds)
def test_two_bridges_under_all_faults_keep_ids_rising_no_duplicates_and_correct_gaps(
    url: str, seed: int
) -> None:
    model = Model(url, Random(seed))
    try:
        run(model, loss=0.02, faults=("both stall", "both cut", "kill"), lost_replies=0.03)

        assert [fault for fault in model.faults() if "not there" not in fault] == []
    finally:
        model.close()


@examples(2)
@given(seeds)
def test_three_bridges_with_one_cut_or_stalled_keep_the_invariants(url: str, seed: int) -> None:
    model = Model(url, Random(seed), "abc")
    try:
        run(model, loss=0.05, faults=("stall", "cut"), lost_replies=0.03)

        assert list(model.faults()) == []
        assert model.gaps(ORDERS) == []
    finally:
        model.close()
