"""What can go wrong with an entry, and what may be said about it (pure but for its log line).

Of a private stream only the error's type is given, in logs and dead letters alike: the text of an
error may quote the entry.
"""

import os
import select
import sys
import traceback

import structlog

import consumers.kit
from bridge.contract.streams import is_private
from consumers.kit.handling.log_budget import LogBudget

_log = structlog.get_logger()
_lines = LogBudget()  # of this process
_LONGEST_ERROR = 500
_KIT = os.path.join(os.path.dirname(consumers.kit.__file__), "")


class HandlerFailed(Exception):
    """A consumer's own code failed; what it raised is chained as `__cause__`.

    `entry_id` is the entry it failed on (of a list: the first), `entries` how many it may have
    been: 1 where the entry is known.
    """

    def __init__(self, stream: str, entry_id: str, entries: int = 1) -> None:
        super().__init__(f"handler failed on {stream} {entry_id}")
        self.stream = stream
        self.entry_id = entry_id
        self.entries = entries

    @property
    def reason(self) -> BaseException:
        """What the consumer's code raised."""
        return self.__cause__ or self

    def log(self, failures: int, retry_s: float) -> None:
        """Write one line: the `failures`-th in a row, the next attempt in `retry_s` seconds. Of a
        stream that fails all the time the first few, and then how many were left out."""
        besides = _lines.take(self.stream)
        if besides is None:
            return
        _log.warning(
            "handler_failed",
            stream=self.stream,
            entry_id=self.entry_id,
            entries=self.entries,
            error=error_text(self.stream, self.reason),
            at=source_line(self.reason),
            failures=failures,
            retry_s=retry_s,
            **besides,
        )


class CancelledWithin(Exception):
    """A handler has cancelled the task in which it runs."""


def cancelled_within(stream: str, entry_id: str, entries: int = 1) -> HandlerFailed:
    """The failure of an entry whose handler has cancelled its own task."""
    failed = HandlerFailed(stream, entry_id, entries)
    failed.__cause__ = CancelledWithin("code of the consumer has cancelled the task of its call")
    return failed


class TookTooLong(Exception):
    """An async handler was cancelled at its time limit."""


class NotFinished(Exception):
    """Stands for an error where there is none: a worker ended, or hung, with the entry in hand."""

    def __init__(self, times: int) -> None:
        super().__init__(f"begun {times} times and never finished: a worker ended or hung with it")


class ResultsRefused(Exception):
    """Redis did not take what a handler wrote: a key of another kind, or no number in it."""


def is_stdout_gone(error: BaseException) -> bool:
    """Whether this came of printing to a pipe that nobody reads any more (`… | head`). Effect: what
    is printed from then on, at the process' end say, goes nowhere instead of failing."""
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        descriptor = sys.stdout.fileno()
        look = select.poll()
        look.register(descriptor, 0)
        is_gone = any(found & (select.POLLERR | select.POLLHUP) for _, found in look.poll(0))
        if is_gone:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        return False  # no descriptor: not a pipe of ours
    return is_gone


def error_text(stream: str, error: BaseException) -> str:
    """`ValueError: not a number`, at most 500 characters; of a private stream the type alone."""
    name = type(error).__name__
    return name if is_private(stream) else f"{name}: {_said(error)}"[:_LONGEST_ERROR]


def source_line(error: BaseException) -> str:
    """File and line that raised it, as `file:line`; empty where it was not raised by Python. Where
    the kit refuses what it was given, the line that gave it.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    theirs = [frame for frame in frames if not frame.filename.startswith(_KIT)]
    last = (theirs or frames)[-1]
    return _as_utf8(f"{last.filename}:{last.lineno}")


def _said(error: BaseException) -> str:
    """Its text, whatever a consumer's own class of errors makes of it."""
    try:
        return _as_utf8(str(error))
    except Exception as second:  # noqa: BLE001 - code of the consumer, which may raise anything
        return f"(its text cannot be had: {type(second).__name__})"


def _as_utf8(text: str) -> str:
    """Half of a surrogate pair is a character in Python, and can be sent to nobody: escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
