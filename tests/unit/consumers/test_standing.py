"""How groups stand, where it needs no Redis."""

from consumers.standing import GroupStanding, Worker


def worker(silent_s: float) -> Worker:
    return Worker("w", silent_s, handled=5, failed=0, retried=2, late=0, rate=1.0, streams=1)


def test_a_worker_that_has_not_spoken_for_five_seconds_is_gone() -> None:
    assert [worker(silent_s).is_alive for silent_s in (0.0, 5.0, 5.1)] == [True, True, False]


def test_what_a_worker_that_is_gone_tried_again_counts_all_the_same() -> None:
    group = GroupStanding("tally", "shared", workers=[worker(1.0), worker(60.0)])
    assert group.plain()["retried"] == 4
