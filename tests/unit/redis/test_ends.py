"""The edges of a stream, which show whether it had older entries; Redis 7 and earlier."""

import hiredis
import pytest

from bridge.redis.append import Limits
from bridge.redis.ends import refusal, tail_of
from tests.support.slots import NOW_US, fields, order

MS = NOW_US // 1000


def entry(ms: int) -> list[object]:
    named = fields(order("9", ms * 1000))
    return [b"%d-0" % ms, [text.encode() for pair in named.items() for text in pair]]


def info(length: int, added: int | None = None) -> list[object]:
    facts: list[object] = [b"length", length, b"last-generated-id", b"%d-0" % (MS + 9000)]
    if added is not None:
        facts += [b"max-deleted-entry-id", b"0-0", b"entries-added", added]
    return [*facts, b"first-entry", entry(MS), b"last-entry", entry(MS + 9000)]


@pytest.mark.parametrize(
    ("length", "added", "limits", "had_older"),
    [
        (5, 5, Limits("5", "1"), False),
        (5, 6, Limits(), True),
        (5, None, Limits(), False),
        (5, None, Limits(max_entries="6"), False),
        (5, None, Limits(max_entries="5"), True),
        (5, None, Limits(max_age_ms="9001"), False),
        (5, None, Limits(max_age_ms="9000"), True),
    ],
)
def test_tail_of_a_stream_shows_its_first_entry_where_it_had_older_ones(
    length: int, added: int | None, limits: Limits, had_older: bool
) -> None:
    tail = tail_of(info(length, added), (), limits)

    assert (tail.first is not None) == had_older
    assert tail.newest
    assert (str(tail.newest.id), tail.newest.received_us) == (tail.last, NOW_US + 9_000_000)


def test_tail_of_a_trimmed_stream_shows_its_first_entry_whichever_program_wrote_the_newest() -> (
    None
):
    facts = [*info(5, 6)[:-1], [b"%d-0" % (MS + 9000), [b"hello", b"world"]]]

    tail = tail_of(facts)

    assert tail.first is not None
    assert tail.newest is None


def test_tail_of_no_stream_and_of_an_emptied_one_has_no_edges() -> None:
    emptied = [
        *(b"length", 0, b"last-generated-id", b"7-0", b"entries-added", 3),
        *(b"first-entry", None, b"last-entry", None),
    ]

    assert tail_of(hiredis.ReplyError("ERR no such key")) == ("0-0", (), None, None)
    assert tail_of(emptied) == ("7-0", (), None, None)


def test_tail_of_a_stream_with_entries_of_others_has_no_edges() -> None:
    theirs = [b"1-0", [b"hello", b"world"]]
    facts: list[object] = [b"length", 1, b"last-generated-id", b"1-0", b"entries-added", 9]

    tail = tail_of([*facts, b"first-entry", theirs, b"last-entry", theirs])

    assert tail == ("1-0", (), None, None)


def test_tail_that_redis_refuses_to_read_has_a_reason_and_a_missing_stream_none() -> None:
    missing, wrong = hiredis.ReplyError("ERR no such key"), hiredis.ReplyError("WRONGTYPE x")

    assert refusal(missing, []) is None
    assert refusal(wrong, []) == "WRONGTYPE x"
    assert refusal(info(1), wrong) == "WRONGTYPE x"
