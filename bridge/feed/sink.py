"""Where everything goes that the feed receives, and what the feed asks about it."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from bridge.core.outcomes import Applied
from bridge.core.records import Record
from bridge.core.wants import Wants


class Sink(Protocol):
    """Takes records in the order of receiving. Nothing here waits or does I/O for long."""

    requested: asyncio.Event  # set when `requests` has new ones; cleared by who polls

    def new_connection(self) -> int:
        """A number for a connection, never used before in this sink."""
        ...

    def take(self, record: Record) -> Applied:
        """A REST body: what became of it, or None where it is kept and applied later. Raises
        BadBody where it is something else.
        """
        ...

    def take_frames(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[Applied]:
        """Frames that were read at once on one connection. Of each the stream it belongs to, the
        error it reports, or None.
        """
        ...

    def flush(self) -> None:
        """All that was read at once has been taken: publish it now."""
        ...

    def may_close(self, connection: int) -> bool:
        """Is all of this connection received elsewhere, so that closing it leaves no outage?"""
        ...

    def requests(self) -> Sequence[str]:
        """Streams that newly want something of REST. Polled: each is told once."""
        ...

    def wants(self, name: str) -> Wants | None:
        """What a stream wants of REST now; None: nothing."""
        ...

    def is_wanted(self, name: str) -> bool:
        """Is a connection to receive this stream?"""
        ...

    def received(self, name: str) -> int:
        """Messages of a stream, ever."""
        ...


class Sinks(Protocol):
    """Private connections may have a sink of their own, whose records no journal keeps."""

    def of(self, *, is_private: bool) -> Sink:
        """The sink of private connections, or of all others."""
        ...
