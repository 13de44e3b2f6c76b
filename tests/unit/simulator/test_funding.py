"""The history of hourly funding rates."""

from simulator.engine import Engine
from tests.support.simulator_runs import plan, run

HOUR_US = 1_790_002_800_000_000


def test_the_last_rate_of_an_hour_is_what_was_paid_at_its_end() -> None:
    start_us = HOUR_US - 3_000_000
    engine = Engine(plan(1, symbols=("SOL_USDC_PERP",), start_us=start_us))
    run(engine, 2.9)
    before = engine.statistics.funding["SOL_USDC_PERP"]
    assert not engine.statistics.funding_paid["SOL_USDC_PERP"]

    run(engine, 2)

    assert [*engine.statistics.funding_paid["SOL_USDC_PERP"]] == [(HOUR_US // 1000, before)]
