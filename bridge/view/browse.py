"""The state of the interactive view, and the effect of each key on it (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from bridge.view.view_model import StreamRow


class Page(StrEnum):
    """The page that is shown."""

    STREAMS = "streams"
    STREAM = "stream"  # one stream, with its newest entries
    ENTRY = "entry"  # one entry, with all its fields
    KEYS = "keys"


class Sort(StrEnum):
    """The order of the streams; `type` is the order of the contract."""

    TYPE = "type"
    NAME = "name"
    RATE = "rate"
    ENTRIES = "entries"
    AGE = "age"
    MARKS = "marks"


class Key(StrEnum):
    """Keys that are no characters, by the keyboard's names."""

    UP = "up"
    DOWN = "down"
    PAGE_UP = "page up"
    PAGE_DOWN = "page down"
    HOME = "home"
    END = "end"
    ENTER = "enter"
    ESCAPE = "escape"
    BACKSPACE = "backspace"


KEYS = (
    ("↑ ↓  k j", "one line up or down"),
    ("PgUp PgDn", "a page up or down; Home, End: to the first, the last"),
    ("Enter", "open the marked stream or entry"),
    ("Esc  ←", "back; clears a search"),
    ("s  S", "sort by " + ", ".join(Sort) + "; S: back"),
    ("/", "search: only streams with these characters in the name; Enter ends"),
    ("Space  p", "pause: keep what is shown; again: continue"),
    ("?", "these keys"),
    ("q  Ctrl-C", "leave"),
)


@dataclass(frozen=True, slots=True)
class Browse:
    """The user's position. `place`: line in the page's list; `stream` and `entry_id`: what was
    chosen on the way.
    """

    page: Page = Page.STREAMS
    place: int = 0
    sort: Sort = Sort.TYPE
    search: str = ""
    is_searching: bool = False
    is_paused: bool = False
    stream: str = ""
    entry_id: str = ""
    is_leaving: bool = False


def pressed(browse: Browse, key: str, listed: Sequence[str], page_lines: int) -> Browse:
    """The state after a key. `listed`: the names of the streams, or the IDs of the entries, in the
    order shown; `page_lines`: how many fit.
    """
    if browse.is_searching:
        return _searched(browse, key)
    last = max(0, len(listed) - 1)
    place = min(browse.place, last)
    moves = {
        Key.UP: place - 1, "k": place - 1, Key.DOWN: place + 1, "j": place + 1,
        Key.PAGE_UP: place - page_lines, Key.PAGE_DOWN: place + page_lines,
        Key.HOME: 0, "g": 0, Key.END: last, "G": last,
    }  # fmt: skip
    if key in moves:
        return replace(browse, place=max(0, min(last, moves[key])))
    if key in ("q", "Q"):
        return replace(browse, is_leaving=True)
    if key in (" ", "p"):
        return replace(browse, is_paused=not browse.is_paused)
    if key == "?":
        return _back(browse) if browse.page is Page.KEYS else replace(browse, page=Page.KEYS)
    if key == Key.ENTER:
        return _entered(browse, listed[place]) if listed else browse
    if key in (Key.ESCAPE, Key.BACKSPACE):
        return _back(browse)
    if browse.page is Page.STREAMS:
        return _listed(browse, key)
    return browse


def ordered(streams: Sequence[StreamRow], browse: Browse) -> list[StreamRow]:
    """The streams that match the search, in the chosen order."""
    needle = browse.search.lower()
    left = [stream for stream in streams if needle in stream.name.lower()]
    match browse.sort:
        case Sort.TYPE:
            return left
        case Sort.NAME:
            return sorted(left, key=lambda stream: stream.name)
        case Sort.RATE:
            return sorted(left, key=lambda stream: -(stream.rate or 0.0))
        case Sort.ENTRIES:
            return sorted(left, key=lambda stream: -stream.entries)
        case Sort.AGE:
            never = 2**63
            return sorted(
                left, key=lambda stream: -(never if stream.age_us is None else stream.age_us)
            )
        case Sort.MARKS:
            return sorted(left, key=lambda stream: (not stream.is_failing, not stream.marks))


def window(place: int, count: int, room: int) -> range:
    """The lines of a list to show, which include `place`."""
    if count <= room:
        return range(count)
    first = max(0, min(place - room // 2, count - room))
    return range(first, first + room)


def _searched(browse: Browse, key: str) -> Browse:
    if key == Key.ENTER:
        return replace(browse, is_searching=False)
    if key == Key.ESCAPE:
        return replace(browse, is_searching=False, search="", place=0)
    if key == Key.BACKSPACE:
        return replace(browse, search=browse.search[:-1], place=0)
    if len(key) == 1 and key.isprintable():
        return replace(browse, search=browse.search + key, place=0)
    return browse


def _listed(browse: Browse, key: str) -> Browse:
    if key == "/":
        return replace(browse, is_searching=True, search="", place=0)
    if key in ("s", "S"):
        sorts = list(Sort)
        step = 1 if key == "s" else -1
        following = sorts[(sorts.index(browse.sort) + step) % len(sorts)]
        return replace(browse, sort=following, place=0)
    return browse


def _entered(browse: Browse, chosen: str) -> Browse:
    if browse.page is Page.STREAMS:
        return replace(browse, page=Page.STREAM, stream=chosen, place=0)
    if browse.page is Page.STREAM:
        return replace(browse, page=Page.ENTRY, entry_id=chosen, place=0)
    return browse


def _back(browse: Browse) -> Browse:
    if browse.page is Page.KEYS and browse.stream:
        return replace(browse, page=Page.ENTRY if browse.entry_id else Page.STREAM)
    if browse.page is Page.ENTRY:
        return replace(browse, page=Page.STREAM, entry_id="", place=0)
    if browse.page is Page.STREAMS:
        return replace(browse, search="", place=0)
    return replace(browse, page=Page.STREAMS, stream="", entry_id="", place=0)
