"""Coverage with times in seconds after a fixed time."""

import json
from collections.abc import Sequence

from bridge.contract.causes import GapCause
from bridge.core.connection_coverage import ConnectionCoverage
from bridge.core.coverage import Coverage
from bridge.core.outages import Outage
from bridge.core.records import Answered

NOW_US = 1_790_915_531_000_000
SECOND_US = 1_000_000
ORDERS = "account.orderUpdate"
NAMES = (ORDERS,)


def at(seconds: float) -> int:
    return NOW_US + int(seconds * SECOND_US)


class Subject(Coverage):
    """Coverage whose connections are opened and answered in one call."""

    streams: Sequence[str] = NAMES

    def answer(
        self,
        connection: int,
        seconds: float,
        excluded: list[str] | None = None,
        *,
        asked_s: float | None = None,
        is_inferred: bool = False,
    ) -> list[Outage]:
        pinged_us = None if asked_s is None else at(asked_s)
        us = at(seconds)
        record = Answered(us, connection, us, excluded or (), pinged_us, is_inferred)
        return list(self.answered(record))

    def cover(self, connection: int, seconds: float) -> list[Outage]:
        """Open a connection that is answered at this time."""
        self.opened(connection, self.streams)
        return self.answer(connection, seconds)

    def message(
        self, connection: int, seconds: float, name: str = ORDERS, *, late_s: float = 0.0
    ) -> list[Outage]:
        result = self.received(self.known(connection), name, at(seconds), at(seconds + late_s))
        return list(result.outages)

    def lose(self, connection: int) -> list[Outage]:
        return list(self.lost(connection, GapCause.CONNECTION_LOST).outages)

    def known(self, connection: int) -> ConnectionCoverage:
        known = self.connection(connection)
        assert known is not None
        return known

    def since_us(self) -> dict[int, dict[str, int]]:
        """The open connections as in a segment's state: since when each stream is received, µs."""
        return {
            number: {
                name: stream.since_us or 0 for name, stream in self.known(number).streams.items()
            }
            for number in self.open_connections()
        }


def restored(coverage: Subject) -> Subject:
    """A coverage restored from the state of this one."""
    again = type(coverage)()
    again.restore(coverage.since_us(), json.loads(json.dumps(coverage.state())))
    return again


def outage(
    from_s: float, to_s: float, cause: GapCause = GapCause.CONNECTION_LOST, stream: str = ORDERS
) -> list[Outage]:
    return [Outage(stream, at(from_s), at(to_s), cause)]
