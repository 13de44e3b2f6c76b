"""Failures of entries, and their texts for logs and dead letters (pure except for logging).

For a private stream only the error's type is written, in logs and dead letters alike: the text of
an error may quote the entry.
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
    """A consumer's own code failed; its exception is chained as `__cause__`.

    `entry_id` is the entry it failed on (of a list: the first), `entries` the number of entries
    that may be the cause: 1 if the entry is known.
    """

    def __init__(self, stream: str, entry_id: str, entries: int = 1) -> None:
        super().__init__(f"handler failed on {stream} {entry_id}")
        self.stream = stream
        self.entry_id = entry_id
        self.entries = entries

    @property
    def reason(self) -> BaseException:
        """The exception of the consumer's code."""
        return self.__cause__ or self

    def log(self, failures: int, retry_s: float) -> None:
        """Log the failure, the `failures`-th in a row, with the next attempt in `retry_s` seconds.
        Of a stream that fails constantly, the first few lines, and then the number left out."""
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
    """A handler has cancelled the task that runs it."""


def cancelled_within(stream: str, entry_id: str, entries: int = 1) -> HandlerFailed:
    """The failure of an entry whose handler has cancelled its own task."""
    failed = HandlerFailed(stream, entry_id, entries)
    failed.__cause__ = CancelledWithin("code of the consumer has cancelled the task of its call")
    return failed


class TookTooLong(Exception):
    """An async handler was cancelled at its time limit."""


class NotFinished(Exception):
    """The reason of a failure without an exception: a worker ended or hung during the handling."""

    def __init__(self, times: int) -> None:
        super().__init__(f"begun {times} times and never finished: a worker ended or hung with it")


class ResultsRefused(Exception):
    """Redis refused a handler's writes: a key has another type, or its value is no number."""


def is_stdout_closed(error: BaseException) -> bool:
    """Whether the error came from printing to a closed pipe (`… | head`). Effect: then redirects
    stdout to the null device, so that later output, such as the flush at exit, cannot fail."""
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        descriptor = sys.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, 0)
        is_closed = any(flags & (select.POLLERR | select.POLLHUP) for _, flags in poll.poll(0))
        if is_closed:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
    except (OSError, ValueError, AttributeError):
        return False  # stdout has no descriptor, so the error came from another pipe
    return is_closed


def error_text(stream: str, error: BaseException) -> str:
    """`ValueError: not a number`, at most 500 characters; for a private stream the type alone."""
    name = type(error).__name__
    return name if is_private(stream) else f"{name}: {_message(error)}"[:_LONGEST_ERROR]


def source_line(error: BaseException) -> str:
    """`file:line` of the code that raised the error; empty if it has no traceback. If the kit
    raised it, the consumer's line that called the kit.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    theirs = [frame for frame in frames if not frame.filename.startswith(_KIT)]
    last = (theirs or frames)[-1]
    return _as_utf8(f"{last.filename}:{last.lineno}")


def _message(error: BaseException) -> str:
    """The text of the error, or a placeholder if its `__str__` fails."""
    try:
        return _as_utf8(str(error))
    except Exception as second:  # noqa: BLE001 - code of the consumer, which may raise anything
        return f"(its text is not available: {type(second).__name__})"


def _as_utf8(text: str) -> str:
    """The text with lone surrogates escaped, which Python allows and UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()
