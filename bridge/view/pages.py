"""The pages of the live view, laid out for a terminal of a given size, with Rich (pure).

For 80 × 24 and larger. Cut text ends in `…`, and a number is shown whole or not at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from bridge.contract.identity import EntryId
from bridge.runtime.terminal import printable
from bridge.view import figures
from bridge.view.browse import KEYS, Browse, Page, Sort, window
from bridge.view.describe import clock, describe_entry
from bridge.view.facts import Followed
from bridge.view.screen import clipped, screen, side_style
from bridge.view.view_model import StreamRow, ViewModel

FRAME_LINES = 8  # lines of a screen around its list


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is painted. `before` is the previous view model. `trouble`: why Redis does not
    answer; `age_s`: the age of the view model.
    """

    view_model: ViewModel | None
    before: ViewModel | None
    where: str
    browse: Browse
    entries: Sequence[Followed]
    age_s: float
    trouble: str


def page(shown: Shown, width: int, height: int, footer: Sequence[str] = ()) -> RenderableType:
    """The current page, under a line with the view model's age."""
    head = _about(shown, width)
    if shown.view_model is None:
        return head
    match shown.browse.page:
        case Page.STREAMS:
            body: RenderableType = screen(
                shown.view_model, width, height - 1, shown.where, footer, shown.browse, shown.before
            )
        case Page.STREAM:
            body = _stream(shown, shown.view_model, width, height - 1)
        case Page.ENTRY:
            body = _entry(shown, width, height - 1)
        case Page.KEYS:
            body = _keys()
    return Group(head, body)


def entry_of(entries: Iterable[Followed], entry_id: str) -> Followed | None:
    """The entry with this ID, or None."""
    return next((entry for entry in entries if entry.entry_id == entry_id), None)


def _about(shown: Shown, width: int) -> Text:
    browse = shown.browse
    if shown.trouble and not browse.is_paused:
        age = figures.age(int(shown.age_s * 1e6))
        what = "no picture yet" if shown.view_model is None else f"this picture is {age} old"
        text = f" Redis at {shown.where} does not answer: {what} ({shown.trouble})"
        return Text(clipped(text, width).ljust(width), style="bold white on red", no_wrap=True)
    if shown.view_model is None:
        return Text(" loading …", style="dim")
    line = Text(" ", no_wrap=True, overflow="ellipsis")
    if browse.is_paused:
        age = figures.age(int(shown.age_s * 1e6))
        line.append(f"PAUSED, {age} ago", style="bold black on yellow")
    else:
        line.append(f"{figures.age(int(shown.age_s * 1e6))} old", style="dim")
    if browse.page is Page.STREAMS and browse.sort is not Sort.TYPE:
        line.append(f"   by {browse.sort}", style="cyan")
    if browse.search or browse.is_searching:
        cursor = "▏" if browse.is_searching else ""
        line.append(f"   /{browse.search}{cursor}", style="bold yellow")
    line.append("   ? keys", style="dim")
    return line


# ---- one stream ----------------------------------------------------------------------------------


def _stream(shown: Shown, view_model: ViewModel, width: int, height: int) -> RenderableType:
    name = shown.browse.stream
    row = next((stream for stream in view_model.streams if stream.name == name), None)
    head = [Text(f" {name}", style="bold", no_wrap=True, overflow="ellipsis")]
    if row is not None:
        head += _summary(row, width)
    if shown.browse.place:
        head.append(Text(" held here: Home follows the newest again", style="yellow"))
    room = max(1, height - len(head) - 1)
    lines = window(shown.browse.place, len(shown.entries), room)
    found = [
        _line(shown.entries[at], width, is_marked=at == shown.browse.place) for at in lines
    ] or [Text(" no entry", style="dim")]
    return Group(*head, Rule(style="dim"), *found)


def _summary(row: StreamRow, width: int) -> list[Text]:
    counters = row.status.counters
    facts = [
        f"{figures.rate(row.rate)}/s".replace("·", "0"),
        f"{row.entries_text} entries",
        f"newest {row.age_text} ago",
        f"{counters.gaps} gaps",
        *(f"{number} {name}" for name, number in _not_zero(row)),
    ]
    lines = [Text(f" {line}", style="dim") for line in wrap("  ".join(facts), width - 2)]
    style = "bold red" if row.is_failing else "bold yellow"
    return [*lines, *(Text(f" ! {clipped(mark, width - 4)}", style=style) for mark in row.marks)]


def _not_zero(row: StreamRow) -> list[tuple[str, int]]:
    counters = row.status.counters
    counts = {
        "recovered": counters.recovered,
        "late": counters.late,
        "repeated": counters.repeated,
        "overflowed": counters.overflowed,
    }
    return [(name, number) for name, number in counts.items() if number]


def _line(entry: Followed, width: int, *, is_marked: bool) -> Text:
    text = describe_entry(entry.fields)
    at = clock(EntryId.parse(entry.entry_id).ms * 1000)
    line = Text(" ", no_wrap=True)
    line.append(at + "  ", style="dim")
    line.append(
        clipped(text, width - len(at) - 4), style=side_style(entry.fields.get("type"), text)
    )
    if is_marked:
        line.stylize("reverse")
    return line


# ---- one entry -----------------------------------------------------------------------------------


def _entry(shown: Shown, width: int, height: int) -> RenderableType:
    entry = entry_of(shown.entries, shown.browse.entry_id)
    if entry is None:
        return Text(" the entry is not here any more: Esc", style="yellow")
    head = [
        Text(f" {entry.stream}", style="bold"),
        Text(f" {entry.entry_id}   {clipped(describe_entry(entry.fields), width - 40)}"),
        Text(
            f" python -m bridge explain {entry.stream} {entry.entry_id}",
            style="dim",
            overflow="fold",
        ),
    ]
    names = list(entry.fields)
    wide = max(map(len, names), default=0)
    lines = []
    for name in names[shown.browse.place :]:
        text = printable(entry.fields[name])
        parts = [text[at : at + width - wide - 4] for at in range(0, len(text), width - wide - 4)]
        for number, part in enumerate(parts or [""]):
            label = name if not number else ""
            line = Text(f" {label:<{wide}}  ", style="cyan")
            line.append(part, style="default")
            lines.append(line)
    room = max(1, height - len(head) - 2)
    more = [Text(" … ↓", style="dim")] if len(lines) > room else []
    return Group(*head, Rule(style="dim"), *lines[:room], *more)


def _keys() -> RenderableType:
    wide = max(cell_len(key) for key, _ in KEYS) + 2
    lines = [Text(" Keys", style="bold"), Text()]
    for key, meaning in KEYS:
        line = Text(f"  {key}{' ' * (wide - cell_len(key))}", style="cyan")
        line.append(meaning, style="default")
        lines.append(line)
    return Group(*lines)
