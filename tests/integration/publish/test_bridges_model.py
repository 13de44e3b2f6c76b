"""Random runs of two bridges over the real lines and the real script, in made-up time."""

from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.pipeline import far
from tests.support.bridges_model import BOOKS, ORDERS, SECOND_US, TRADES, Bridge, Model

pytestmark = pytest.mark.timeout(300)
STEPS = 120
seeds = st.integers(0, 2**32)


@pytest.fixture
def url(redis_url: str) -> str:
    return redis_url


def run(model: Model, *, loss: float, faults: tuple[str, ...], lost_replies: float) -> None:
    """Send, read, publish, beat; and let one thing go wrong at a time."""
    beaten_us = model.now_us
    for _ in range(STEPS):
        model.send(loss)
        if model.chance.random() < 0.7:
            model.work(lost_replies)
        if model.now_us - beaten_us >= SECOND_US:
            beaten_us = model.now_us
            model.beat_all()
        if model.chance.random() < 0.08 and faults:
            go_wrong(model, model.chance.choice(faults), model.chance.choice(model.bridges))
    model.come_to_rest()


def go_wrong(model: Model, fault: str, bridge: Bridge) -> None:
    others = [other for other in model.bridges if other is not bridge]
    others_are_well = all(
        other.listens and not other.stalled and not far.deaf_streams(other.intake)
        for other in others
    )
    if fault == "kill" and bridge.listens:
        model.restart(bridge, model.chance.randint(0, len(bridge.journal)))
    elif fault == "both stall" or (fault == "stall" and (bridge.stalled or others_are_well)):
        bridge.stalled = not bridge.stalled
    elif fault == "deaf" and not bridge.listens:
        model.connect(bridge)
    elif fault == "both deaf" or (fault == "deaf" and others_are_well):
        model.cut(bridge) if bridge.listens else model.connect(bridge)


@pytest.mark.parametrize(("loss", "faults"), [(0.02, ("deaf",)), (0.0, ("stall", "deaf"))])
@settings(max_examples=12)
@example(seed=367)  # one is deaf just when another has said nothing yet of what it hears again
@given(seed=seeds)
def test_what_one_of_two_heard_is_there_once_and_no_interval_is_said_to_be_missing(
    url: str, loss: float, faults: tuple[str, ...], seed: int
) -> None:
    model = Model(url, Random(seed))
    try:
        run(model, loss=loss, faults=faults, lost_replies=0.03)

        assert list(model.faults()) == []
        assert model.gaps(ORDERS) == []
        assert model.numbers(ORDERS, "order_id") == set(model.made[ORDERS])
        there = model.numbers(TRADES, "trade_id")
        heard = {number for stream, number in model.heard if stream == TRADES}
        assert there == {number for number in heard if number >= min(there, default=0)}
        assert max(model.numbers(BOOKS, "update_id"), default=0) == len(model.made[BOOKS])
    finally:
        model.close()


@settings(max_examples=12)
@given(seeds)
def test_whatever_goes_wrong_ids_rise_nothing_is_twice_and_gaps_tell_the_truth(
    url: str, seed: int
) -> None:
    model = Model(url, Random(seed))
    try:
        run(model, loss=0.02, faults=("both stall", "both deaf", "kill"), lost_replies=0.03)

        assert [fault for fault in model.faults() if "neither there" not in fault] == []
    finally:
        model.close()


@settings(max_examples=6)
@given(seeds)
def test_three_bridges_follow_the_same_laws(url: str, seed: int) -> None:
    model = Model(url, Random(seed), "abc")
    try:
        run(model, loss=0.05, faults=("stall", "deaf"), lost_replies=0.03)

        assert list(model.faults()) == []
        assert model.gaps(ORDERS) == []
    finally:
        model.close()
