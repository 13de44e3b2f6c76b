"""What the journal's lines say of an answer, in every version's words."""

import pytest

from bridge.journal.record import Answer, read_answer, render_answer

AT_US = 1_790_915_531_000_000
NAMES = ["trade.SOL_USDC", "liquidation"]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (Answer(AT_US), b"1790915531000000"),
        (Answer(AT_US, NAMES, AT_US - 900_000), b"1790915531000000 trade.SOL_USDC liquidation"),
        (
            Answer(AT_US, NAMES, AT_US - 20_000_000),
            b"1790915531000000 trade.SOL_USDC liquidation until=1790915511000000",
        ),
        (Answer(AT_US, (), 0), b"1790915531000000 until=0"),
    ],
)
def test_only_one_that_took_long_says_since_when_it_may_have_been_under_way(
    answer: Answer, body: bytes
) -> None:
    assert render_answer(answer) == body


def test_what_is_said_is_read_again() -> None:
    for answer in (Answer(AT_US, [], 0), Answer(AT_US, NAMES, 7), Answer(AT_US, NAMES)):
        assert read_answer(render_answer(answer), 1) == answer


def test_the_earliest_versions_did_not_say_when() -> None:
    assert read_answer(b"", AT_US) == Answer(AT_US, [])


@pytest.mark.parametrize("damaged", [b"soon", b"1 until=then", b"\xff"])
def test_damage_is_said(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|can't decode"):
        read_answer(damaged, AT_US)
