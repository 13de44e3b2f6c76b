"""A few at once, then at an even pace."""

from bridge.feed.pace import Pace


def test_a_few_go_at_once_and_the_rest_at_an_even_pace() -> None:
    pace = Pace(per_second=2, burst=3)

    assert [pace.take(100.0) for _ in range(6)] == [100, 100, 100, 100.5, 101, 101.5]


def test_after_a_rest_a_few_go_at_once_again() -> None:
    pace = Pace(per_second=1, burst=2)
    for _ in range(5):
        pace.take(100.0)

    assert [pace.take(200.0) for _ in range(3)] == [200, 200, 201]


def test_held_nobody_goes_before_and_not_all_at_once_after() -> None:
    pace = Pace(per_second=1, burst=3)
    pace.hold(130.0)

    assert [pace.take(100.0) for _ in range(3)] == [130, 131, 132]
