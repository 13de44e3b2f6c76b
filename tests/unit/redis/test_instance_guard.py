"""Of two live processes with one name the later one ends; a dead one's status is ignored."""

import pytest

from bridge.core.peers import PeerStatus
from bridge.redis.instance_guard import InstanceGuard, NameTaken

NOW_US = 1_790_915_531_000_000


def status(session: str, beat: int, started_us: int = NOW_US - 1) -> PeerStatus:
    return PeerStatus(
        instance="a", session=session, beat=beat, started_us=started_us, host="tokyo", pid=7
    )


def test_later_of_two_processes_under_one_name_ends() -> None:
    guard = InstanceGuard(PeerStatus(instance="a", session="mine"))
    guard.check([status("theirs", 1)], NOW_US)

    with pytest.raises(NameTaken, match=r"the name a \(process 7 on tokyo\).*another `instance`"):
        guard.check([status("theirs", 2)], NOW_US + 1)


def test_earlier_of_two_processes_under_one_name_continues() -> None:
    guard = InstanceGuard(PeerStatus(instance="a", session="mine"))
    guard.check([], NOW_US)

    for beat in range(3):
        guard.check([status("theirs", beat, NOW_US + 1)], NOW_US + beat)


def test_of_two_processes_that_started_at_once_one_ends() -> None:
    ended = 0
    for mine, theirs in (("x", "y"), ("y", "x")):
        guard = InstanceGuard(PeerStatus(instance="a", session=mine))
        guard.check([], NOW_US)
        try:
            for beat in range(2):
                guard.check([status(theirs, beat, NOW_US)], NOW_US + beat)
        except NameTaken:
            ended += 1

    assert ended == 1


def test_last_status_of_a_killed_process_does_not_count_as_another_bridge() -> None:
    guard = InstanceGuard(PeerStatus(instance="a", session="mine"))

    for moment_us in range(5):
        guard.check([status("dead", 9)], NOW_US + moment_us)


def test_own_statuses_are_numbered_and_carry_the_time_of_redis() -> None:
    guard = InstanceGuard(PeerStatus(instance="a", session="mine"))
    guard.check([], NOW_US)

    first, second = guard.next_status(oldest_us=5), guard.next_status(oldest_us=6)

    assert (first.beat, second.beat) == (1, 2)
    assert (second.oldest_us, second.at_us, second.started_us) == (6, NOW_US, NOW_US)


def test_status_of_a_stopped_process_does_not_count_as_another_bridge() -> None:
    guard = InstanceGuard(PeerStatus(instance="a", session="mine"))

    for beat in range(3):
        stopped = status("theirs", beat).model_copy(update={"stopped": True})
        guard.check([stopped], NOW_US + beat)
