"""The effect of keys in the live view, and the shown part of a list."""

import pytest

from bridge.core.counters import StreamCounters
from bridge.view.browse import Browse, Key, Page, Sort, ordered, pressed, window
from bridge.view.facts import StreamStatus
from bridge.view.keyboard import keys_in
from bridge.view.view_model import StreamRow

NAMES = ["trade.A", "trade.B", "depth.A", "depth.B"]


def after(*keys: str, browse: Browse | None = None, listed: list[str] | None = None) -> Browse:
    found = browse or Browse()
    for key in keys:
        found = pressed(found, key, NAMES if listed is None else listed, 2)
    return found


def row(name: str, rate: float | None, age_us: int | None, *marks: str) -> StreamRow:
    status = StreamStatus(counters=StreamCounters())
    return StreamRow(name, rate, len(name), age_us, "", status, marks, bool(marks))


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ((Key.DOWN, "j"), 2),
        ((Key.UP,), 0),
        ((Key.END,), 3),
        ((Key.END, Key.DOWN), 3),
        ((Key.PAGE_DOWN,), 2),
        ((Key.PAGE_DOWN, Key.PAGE_DOWN, Key.PAGE_UP), 1),
        ((Key.END, Key.HOME), 0),
    ],
)
def test_keys_move_within_the_list(keys: tuple[str, ...], place: int) -> None:
    assert after(*keys).place == place


def test_enter_reads_a_stream_and_an_entry_and_escape_leads_back() -> None:
    stream = after(Key.DOWN, Key.ENTER)
    assert (stream.page, stream.stream, stream.place) == (Page.STREAM, "trade.B", 0)
    entry = after(Key.DOWN, Key.ENTER, browse=stream, listed=["9-0", "8-0"])
    assert (entry.page, entry.entry_id) == (Page.ENTRY, "8-0")
    assert after(Key.ESCAPE, browse=entry).page is Page.STREAM
    back = after(Key.ESCAPE, Key.ESCAPE, browse=entry)
    assert (back.page, back.stream, back.entry_id) == (Page.STREAMS, "", "")


def test_the_page_of_keys_opens_and_closes_to_the_page_before() -> None:
    stream = after(Key.ENTER)
    assert after("?", browse=stream).page is Page.KEYS
    assert after("?", "?", browse=stream).page is Page.STREAM
    assert after("?", "?").page is Page.STREAMS


def test_characters_of_a_search_are_no_commands() -> None:
    found = after("/", "s", "q", "x", Key.BACKSPACE)
    assert (found.search, found.is_searching, found.is_leaving) == ("sq", True, False)
    ended = after(Key.ENTER, browse=found)
    assert (ended.search, ended.is_searching) == ("sq", False)
    assert after(Key.ESCAPE, browse=found).search == ""
    assert after(Key.ESCAPE, browse=ended).search == ""


def test_q_leaves_and_space_pauses() -> None:
    assert after("q").is_leaving
    assert [after(*[" "] * times).is_paused for times in (1, 2)] == [True, False]


def test_enter_without_a_selected_line_does_nothing() -> None:
    assert after(Key.ENTER, Key.DOWN, "ä", listed=[]) == Browse()


def test_streams_are_sorted_and_searched_as_chosen() -> None:
    rows = [row("b", 1.0, 5), row("a", None, None, "gap"), row("cc", 9.0, 7)]

    def names(sort: Sort, search: str = "") -> str:
        return " ".join(each.name for each in ordered(rows, Browse(sort=sort, search=search)))

    assert names(Sort.TYPE) == "b a cc"
    assert names(Sort.NAME) == "a b cc"
    assert names(Sort.RATE) == "cc b a"
    assert names(Sort.ENTRIES) == "cc b a"
    assert names(Sort.AGE) == "a cc b"
    assert names(Sort.MARKS) == "a b cc"
    assert names(Sort.NAME, "C") == "cc"
    assert after("s").sort is Sort.NAME
    assert after("S").sort is Sort.MARKS


@pytest.mark.parametrize("count", [0, 1, 5, 6, 40])
def test_the_selected_line_is_always_shown(count: int) -> None:
    for place in range(count):
        lines = window(place, count, 5)
        assert place in lines
        assert len(lines) == min(count, 5)
        assert 0 <= lines.start <= lines.stop <= count


def test_input_of_a_terminal_is_read_as_keys() -> None:
    sent = "j\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[H\r\x7f\x1b[1;5C\x1b"
    assert list(keys_in(sent)) == [
        "j", Key.UP, Key.DOWN, Key.PAGE_UP, Key.PAGE_DOWN, Key.HOME, Key.ENTER, Key.BACKSPACE,
        Key.ESCAPE,
    ]  # fmt: skip
