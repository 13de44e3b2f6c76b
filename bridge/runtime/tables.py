"""Tables for a terminal of any width: names and numbers stay whole, text is wrapped, and then the
least useful columns are left out and listed below.
"""

from collections.abc import Iterable, Sequence
from enum import Enum

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

Cell = Text | str
_NOTHING = frozenset({"", "0", "–"})
_LEAST_TEXT = 12  # least width of a column of text that is wider
_BETWEEN = 3  # two columns: a blank each, and the line
_AROUND = 2


class Width(Enum):
    """How a column gives way where the terminal is narrow."""

    NAME = "stays on one line; the last that is broken"
    NUMBER = "stays whole, on the right"
    TEXT = "is broken into lines"


def table(
    title: str,
    columns: Sequence[tuple[str, Width]],
    rows: Sequence[Sequence[Cell]],
    *,
    room: int,
    keep: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> Table:
    """A table of these rows, at most `room` wide, without columns that hold only zeros and blanks,
    except those of `keep`. Where it is too wide, the columns of `spare` are left out, the first
    ones first.
    """
    shown = [
        at
        for at, (heading, _) in enumerate(columns)
        if heading in keep or any(_plain(row[at]) not in _NOTHING for row in rows)
    ]
    least = {at: _least(columns[at], (row[at] for row in rows)) for at in shown}
    left_out = []
    for name in spare:
        if _needed(least[at] for at in shown) <= room:
            break
        without = [at for at in shown if columns[at][0] != name]
        left_out += [name] * (len(shown) - len(without))
        shown = without
    is_narrow = _needed(least[at] for at in shown) > room
    made = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for at in shown:
        heading, width = columns[at]
        is_broken = width is Width.TEXT or (is_narrow and width is Width.NAME)
        made.add_column(
            heading,
            justify="right" if width is Width.NUMBER else "left",
            no_wrap=not is_broken,
            overflow="fold",
            min_width=least[at] if width is not Width.NAME else None,
        )
    for row in rows:
        made.add_row(*(row[at] for at in shown))
    if left_out:
        made.caption = f"left out, for want of room: {', '.join(left_out)}"
        made.caption_justify = "left"
    return made


def _least(column: tuple[str, Width], cells: Iterable[Cell]) -> int:
    """The column's least width."""
    heading, width = column
    widest = max((cell_len(line) for cell in cells for line in _plain(cell).split("\n")), default=0)
    least = min(widest, _LEAST_TEXT) if width is Width.TEXT else widest
    return max(cell_len(heading), least)


def _needed(widths: Iterable[int]) -> int:
    several = list(widths)
    return sum(several) + _BETWEEN * (len(several) - 1) + _AROUND


def _plain(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell
