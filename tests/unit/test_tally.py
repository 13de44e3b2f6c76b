"""The counts of the chaos table, from literal numbers."""

from tests.support.tally import Tally, of_numbers, table


def test_missing_marked_duplicated_and_disordered_numbers_are_counted() -> None:
    tally = of_numbers([1, 2, 3, 4, 5, 6], [1, 2, 2, 6, 5], gaps=[(3, 3)])

    assert tally == Tally(made=6, missing=2, marked=1, duplicated=1, disordered=1)
    assert tally.lost == 1


def test_numbers_stored_once_and_in_order_count_as_zero() -> None:
    assert of_numbers([7, 8, 9], [7, 8, 9]) == Tally(made=3)


def test_tallies_add_up() -> None:
    assert Tally(1, 2, 3, 4, 5) + Tally(10, 20, 30, 40, 50) == Tally(11, 22, 33, 44, 55)


def test_the_table_has_a_line_for_each_run() -> None:
    row = {
        "fault": "Redis killed 20 times",
        "seed": 7,
        "ours": {"made": 1000, "missing": 3, "marked": 3, "duplicated": 0, "disordered": 0},
        "theirs": {"made": 1000, "missing": 12, "marked": 0, "duplicated": 1, "disordered": 0},
    }

    alone = row | {"fault": "two bridges: kill", "theirs": None}

    assert table([row, alone]).splitlines()[2:] == [
        "| Redis killed 20 times | 1,000 | 0 | 3 | 0 | 12 | 1 | 7 |",
        "| two bridges: kill | 1,000 | 0 | 3 | 0 | – | – | 7 |",
    ]
