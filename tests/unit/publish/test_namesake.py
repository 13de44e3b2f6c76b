"""Two processes under one name: the later one goes, and nobody goes for a dead one's last word."""

import pytest

from bridge.pipeline.peers import Word
from bridge.publish.namesake import Namesake, NameTaken

NOW_US = 1_790_915_531_000_000


def word(session: str, beat: int, started_us: int = NOW_US - 1) -> Word:
    return Word(
        instance="a", session=session, beat=beat, started_us=started_us, host="tokyo", pid=7
    )


def test_the_later_of_two_goes() -> None:
    name = Namesake(Word(instance="a", session="mine"))
    name.look([word("theirs", 1)], NOW_US)

    with pytest.raises(NameTaken, match=r"the name a \(process 7 on tokyo\).*another `instance`"):
        name.look([word("theirs", 2)], NOW_US + 1)


def test_the_earlier_of_two_stays() -> None:
    name = Namesake(Word(instance="a", session="mine"))
    name.look([], NOW_US)

    for beat in range(3):
        name.look([word("theirs", beat, NOW_US + 1)], NOW_US + beat)


def test_of_two_that_started_at_once_one_goes() -> None:
    gone = 0
    for mine, theirs in (("x", "y"), ("y", "x")):
        name = Namesake(Word(instance="a", session=mine))
        name.look([], NOW_US)
        try:
            for beat in range(2):
                name.look([word(theirs, beat, NOW_US)], NOW_US + beat)
        except NameTaken:
            gone += 1

    assert gone == 1


def test_the_last_word_of_a_killed_one_is_no_other_bridge() -> None:
    name = Namesake(Word(instance="a", session="mine"))

    for moment_us in range(5):
        name.look([word("dead", 9)], NOW_US + moment_us)


def test_our_words_are_numbered_and_carry_the_time_of_redis() -> None:
    name = Namesake(Word(instance="a", session="mine"))
    name.look([], NOW_US)

    first, second = name.next_word(oldest_us=5), name.next_word(oldest_us=6)

    assert (first.beat, second.beat) == (1, 2)
    assert (second.oldest_us, second.at_us, second.started_us) == (6, NOW_US, NOW_US)
