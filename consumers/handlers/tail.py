"""Sample: print each entry as one line.

The simplest shared consumer: one handler for every event. Several `tail` workers of one group share
the lines; give each its own `--group` to see all entries in each. Lines end up in container logs
and in the worker's status: for `account.*` they show only the type; with `-o account=shown` the
printed lines show all fields.
"""

import os
import sys
from datetime import UTC, datetime

from consumers import Consumer, Delivery, Event, StopWorker, printable

_NOT_SHOWN = {"type", "symbol", "event_us", "engine_us", "received_us"}
_LONGEST_VALUE = 60


class Tail(Consumer):
    """Prints each entry of its streams as one readable line."""

    name = "tail"
    streams = ("*",)

    def __init__(self, account: str = "hidden") -> None:
        if account not in ("hidden", "shown"):
            raise ValueError(f"account={account}: hidden or shown, what account.* entries say")
        self._shows_account = account == "shown"
        self._last = ""

    def on_event(self, delivery: Delivery[Event]) -> None:
        brief, whole = head(delivery), line(delivery)
        is_private = delivery.stream.startswith("account.")
        self._last = brief if is_private else whole  # part of the status, which others can read
        shown = brief if is_private and not self._shows_account else whole
        try:
            sys.stdout.write(shown + "\n")
            sys.stdout.flush()  # a pipe is buffered otherwise: its reader would get lines late
        except BrokenPipeError:
            # The reader has closed the pipe (`… | head`). The null device prevents another error
            # when Python flushes stdout at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise StopWorker from None

    def made(self) -> str:
        return self._last[:80]


def head(delivery: Delivery[Event]) -> str:
    """`12:34:56.789 account.orderUpdate orderFill`: no fields; the time is UTC."""
    event = delivery.event
    return printable(f"{_time(delivery)} {delivery.stream} {event.type}")


def line(delivery: Delivery[Event]) -> str:
    """`12:34:56.789 trade.SOL_USDC trade price=98.96 quantity=1.25 …`."""
    values = delivery.event.model_dump(exclude=_NOT_SHOWN, exclude_none=True, by_alias=False)
    shown = " ".join(f"{name.rstrip('_')}={_short(value)}" for name, value in values.items())
    return printable(f"{head(delivery)} {shown}".rstrip())


def _time(delivery: Delivery[Event]) -> str:
    moment = datetime.fromtimestamp(delivery.moment_us // 1000 / 1000, UTC)
    return moment.strftime("%H:%M:%S.%f")[:-3]


def _short(value: object) -> str:
    if isinstance(value, list):
        text = " ".join(_row(row) for row in value)
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _row(row: object) -> str:
    return "@".join(map(str, reversed(row))) if isinstance(row, tuple) else str(row)
