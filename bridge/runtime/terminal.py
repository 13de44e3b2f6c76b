"""Prints text for people: a line stays one line, and cannot control the terminal.

Shown text may come from the exchange, Redis or another program. Knows nothing of its meaning.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from bridge.runtime.masking import masked_text

if TYPE_CHECKING:
    from rich.console import Console

MOST_SHOWN = 16_384  # characters of a line; JSON for programs is not cut
_MOST_DIGITS = 4  # of a terminal's width; lines are padded to it
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_LEAST_TEXT = 20  # columns; in fewer, nothing is wrapped
_DELETE = "\x7f"  # the one control character that JSON does not escape


def printable(text: str) -> str:
    r"""The text with escapes (`\u001b`, `\n`) for unprintable characters: line ends, control
    characters, direction marks. JSON on one line stays the same JSON.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def bounded(text: str, most: int = MOST_SHOWN) -> str:
    """The text; a longer one is cut, with its length appended."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def ready_standard_files() -> None:
    """Redirect closed standard files to the null device: else a socket could get their number and
    what is printed. A character that the terminal's encoding lacks (Latin-1 has no `→`) is printed
    as an escape instead of raising. An absurd COLUMNS is removed.
    """
    if len(os.environ.get("COLUMNS", "")) > _MOST_DIGITS:
        del os.environ["COLUMNS"]
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def telling_full_disks() -> Iterator[None]:
    """End the program with a message and status 1 where its output cannot be written."""
    try:
        yield
    except (OSError, BaseExceptionGroup) as error:
        whys = {_no_room(each) for each in _each(error)}
        if None in whys:
            raise
        with contextlib.suppress(OSError):  # standard error may be on the same disk
            echo(f"error: what is printed cannot be written: {whys.pop()}", to_stderr=True)
        with contextlib.suppress(OSError):  # Python would flush once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _each(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for below in error.exceptions:
            yield from _each(below)
    else:
        yield error


def _no_room(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.filename is None and error.errno in _NO_ROOM:
        return error.strerror
    return None


def echo(line: str = "", *, to_stderr: bool = False) -> None:
    """Print one line, with secrets masked."""
    typer.echo(masked_text(printable(bounded(line))), err=to_stderr)


def echo_labelled(rows: Iterable[tuple[str, str]]) -> None:
    """Print sentences after their labels, in two columns; an empty label repeats the previous one.
    A terminal gets each sentence wrapped, a program one line for each.
    """
    cells = [(printable(bounded(label)), printable(bounded(text))) for label, text in rows]
    wide = max((len(label) for label, text in cells if text), default=0) + 2
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for label, text in cells:
        head = f"{label:<{wide}}" if text else label
        indent = " " * (wide + len(text) - len(text.lstrip()))
        if width <= wide + _LEAST_TEXT:
            echo(head + text)
            continue
        for line in textwrap.wrap(
            head + text, width, subsequent_indent=indent, break_on_hyphens=False
        ) or [""]:
            echo(line)


def echo_json(value: Any, indent: int | None = None) -> None:
    """Print JSON for programs; secrets are masked in string values only, not in names."""
    for line in json.dumps(_masked(value), indent=indent).split("\n"):
        typer.echo(printable(line))


def new_console(width: int | None = None) -> "Console":
    """A Rich console that prints texts literally: `[red]` is no colour and `:bomb:` no picture.
    The caller escapes control characters.
    """
    from rich.console import Console

    return Console(width=width, highlight=False, markup=False, emoji=False)


def _masked(value: Any) -> Any:
    match value:
        case str():
            return masked_text(value)
        case dict():
            return {name: _masked(each) for name, each in value.items()}
        case list() | tuple():
            return [_masked(each) for each in value]
    return value


def _escaped(char: str) -> str:
    return r"\u007f" if char == _DELETE else json.dumps(char)[1:-1]
