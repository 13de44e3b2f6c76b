"""Joined streams while workers are continually killed, suspended and stopped."""

import signal
import time
from pathlib import Path
from random import Random

import pytest

from tests.support.consumer_worker import Worker, bench
from tests.support.spread_pairs import ASSETS, Pairs

STORM_S = 40


@pytest.mark.timeout(240)
def test_spreads_are_correct_in_a_storm_of_kills_and_stops(tmp_path: Path, redis_url: str) -> None:
    chance = Random(3)
    with bench(tmp_path, redis_url) as one:
        pairs = Pairs(one)

        def start() -> Worker:
            return one.start("examples.spread:Spread", "--lease", "1")

        def is_counted(worker: Worker) -> bool:
            return one.redis.zscore("consumers:workers:spread", worker.name) is not None

        workers = [start() for _ in range(3)]
        ends_at = time.monotonic() + STORM_S
        while time.monotonic() < ends_at:
            pairs.add(60)
            time.sleep(chance.random() * 0.6)  # a random pause between two faults
            victim = chance.randrange(3)
            match chance.choice(("kill", "suspend", "stop", "nothing", "nothing", "nothing")):
                case "kill":
                    workers[victim].kill()
                    workers[victim] = start()
                case "suspend":  # until its peers count it as dead
                    workers[victim].signal(signal.SIGSTOP)
                    one.until(lambda: not is_counted(workers[victim]))  # noqa: B023
                    pairs.add(30)
                    workers[victim].signal(signal.SIGCONT)
                case "stop":
                    workers[victim].signal(signal.SIGINT)
                    workers[victim] = start()
        one.until(lambda: all(len(pairs.values(a)) >= len(pairs.truth[a]) for a in ASSETS))
        for asset in ASSETS:
            assert pairs.values(asset) == pairs.truth[asset]
        assert not any("Traceback" in worker.err for worker in one.workers)
