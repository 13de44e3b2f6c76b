"""Tables for a terminal of any width: names and numbers stay whole, words give way."""

from collections.abc import Sequence
from enum import Enum

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

Cell = Text | str
_NOTHING = frozenset({"", "0", "–"})


class Width(Enum):
    """What becomes of a column where the terminal is narrow."""

    NAME = "stays on one line"
    NUMBER = "the same, on the right"
    WORDS = "is broken into lines"


def table(
    title: str,
    columns: Sequence[tuple[str, Width]],
    rows: Sequence[Sequence[Cell]],
    keep: Sequence[str] = (),
) -> Table:
    """A table of these rows without the columns that have nothing but zeros and nothing in them;
    those of `keep` stay.
    """
    made = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    told = [
        at
        for at, (heading, _) in enumerate(columns)
        if heading in keep or any(_plain(row[at]) not in _NOTHING for row in rows)
    ]
    for at in told:
        heading, width = columns[at]
        made.add_column(
            heading,
            justify="right" if width is Width.NUMBER else "left",
            no_wrap=width is not Width.WORDS,
            overflow="fold" if width is Width.WORDS else "ellipsis",
        )
    for row in rows:
        made.add_row(*(row[at] for at in told))
    return made


def _plain(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell
