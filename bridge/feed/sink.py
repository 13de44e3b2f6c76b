"""The interface of the feed to the ingest: it takes records, and returns what to fetch."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from bridge.core.outcomes import Applied
from bridge.core.records import Record
from bridge.core.wants import Wants


class Sink(Protocol):
    """Takes records in the order of receipt. No method waits or does long I/O."""

    requested: asyncio.Event  # set when `requests` has new ones; the poller clears it

    def new_connection(self) -> int:
        """A number for a connection, never used before in this sink."""
        ...

    def take(self, record: Record) -> Applied:
        """Take a record. Returns the result of a REST body, or None if it is stored and applied
        later. Raises BadBody for an invalid REST body.
        """
        ...

    def take_frames(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[Applied]:
        """Take frames that were read at once on one connection. Returns for each its stream, the
        error that it reports, or None.
        """
        ...

    def flush(self) -> None:
        """Publish now: everything that was read at once has been taken."""
        ...

    def may_close(self, connection: int) -> bool:
        """Whether closing this connection leaves no outage: other ones receive all its streams."""
        ...

    def requests(self) -> Sequence[str]:
        """Streams with a new need for REST data; each is returned once."""
        ...

    def wants(self, name: str) -> Wants | None:
        """What is to be fetched over REST for a stream now; None: nothing."""
        ...

    def is_wanted(self, name: str) -> bool:
        """Whether a connection is to receive this stream."""
        ...

    def received(self, name: str) -> int:
        """The number of messages of a stream received so far."""
        ...


class Sinks(Protocol):
    """The sinks. Private connections may have their own, whose records are not journaled."""

    def of(self, *, is_private: bool) -> Sink:
        """The sink of private connections, or of public ones."""
        ...
