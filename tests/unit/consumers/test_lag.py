"""The lag report of consumer groups: liveness and retries of workers."""

from consumers.kit.lag import GroupLag, Worker


def worker(silent_s: float) -> Worker:
    return Worker(
        "w", silent_s, handled=5, failed=0, retried=2, late=0, undecodable=1, rate=1.0, streams=1
    )


def test_a_worker_without_a_status_for_five_seconds_is_not_alive() -> None:
    assert [worker(silent_s).is_alive for silent_s in (0.0, 5.0, 5.1)] == [True, True, False]


def test_retries_of_a_dead_worker_are_counted() -> None:
    group = GroupLag("tally", "shared", workers=[worker(1.0), worker(60.0)])
    assert group.as_dict()["retried"] == 4
