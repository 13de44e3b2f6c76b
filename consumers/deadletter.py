"""A dead letter: an entry that could not be handled, set aside with the reason (pure).

It lies beside its stream, `consumers:{<stream>}:<group>:dead`, with all that is needed to look at
it and to send it back, even where the stream itself has been trimmed meanwhile. Of a private
stream's trouble only the error's type is told: its text may quote the entry.
"""

import json
import traceback
from collections.abc import Mapping
from typing import NamedTuple

from consumers.results import Write

KEPT = 10_000  # dead letters of a stream and group: the oldest go first
_LONGEST_ERROR = 500


def is_private(stream: str) -> bool:
    """Whether nothing of the stream's content may be told."""
    return stream.startswith("account.")


def error_text(stream: str, error: BaseException | None) -> str:
    """What may be said of it: `ValueError: not a number`, or the type alone."""
    name = type(error).__name__
    return name if is_private(stream) else f"{name}: {error}"[:_LONGEST_ERROR]


def place(error: BaseException | None) -> str:
    """File and line that raised it: where a handler's author looks first."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def dead_letter(
    stream: str,
    entry_id: str,
    fields: Mapping[str, str],
    *,
    attempts: int,
    error: BaseException,
    worker: str,
) -> Write:
    """The command that puts it there."""
    letter = {
        "stream": stream,
        "entry_id": entry_id,
        "attempts": str(attempts),
        "error": error_text(stream, error),
        "at": place(error),
        "worker": worker,
        "fields": json.dumps(fields, separators=(",", ":")),
    }
    flat = [text for pair in letter.items() for text in pair]
    return Write("XADD", "dead", ("MAXLEN", "~", str(KEPT), "*", *flat))


class NotFinished(Exception):
    """Instead of an error, where there is none: a worker ended or hung with the entry in hand."""

    def __init__(self, times: int) -> None:
        super().__init__(f"begun {times} times and never finished: a worker ended or hung with it")


class Letter(NamedTuple):
    """A dead letter in hand: its entry, and the attempts at it, the one that begins included."""

    letter_id: str
    entry: tuple[str, dict[str, str]]
    attempts: int

    @property
    def entry_id(self) -> str:
        return self.entry[0]


def letter_of(letter_id: str, fields: Mapping[str, str]) -> Letter:
    """Read one back."""
    entry = fields["entry_id"], json.loads(fields["fields"])
    return Letter(letter_id, entry, int(fields["attempts"]))


class ResultsRefused(Exception):
    """Redis would not take what a handler wrote."""
