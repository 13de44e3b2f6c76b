"""Says to an intake what the journal's records say (pure: the records carry their times)."""

import json

from bridge.journal.record import Kind, Record
from bridge.pipeline.book import Join
from bridge.pipeline.deafness import NOT_RUNNING
from bridge.pipeline.intake import Intake
from bridge.protocol.rest import BadBody


class Player:
    """Plays records to one intake. Call `begin` where reading starts anew."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._fresh = True

    def begin(self) -> None:
        """The next record is the first of a reading: a segment's state counts then, only then."""
        self._fresh = True

    def apply(self, record: Record, offset: int, *, strict: bool) -> Join | None:
        """One record. A REST body answers what became of it; a bad one raises BadBody if `strict`
        (it has just come), and is passed over otherwise (it was refused when it came).
        """
        intake, number = self._intake, record.connection
        fresh, self._fresh = self._fresh, False
        match record.kind:
            case Kind.FRAME | Kind.BINARY:
                intake.hear(record.body, record.received_us, number, offset)
            case Kind.OPENED:
                intake.opened(number, json.loads(record.body)["streams"])
            case Kind.ANSWERED:
                intake.answered(number, record.received_us, offset)
            case Kind.LOST:
                intake.lost(number, json.loads(record.body)["cause"])
            case Kind.MARKS:
                intake.resume(json.loads(record.body), offset)
            case Kind.STARTED:
                for connection in intake.deafness.open_connections():
                    intake.lost(connection, NOT_RUNNING)
            case Kind.STATE if fresh:
                intake.deafness.restore(**json.loads(record.body))
            case Kind.REST:
                return self._body(record, offset, strict=strict)
        return None

    def _body(self, record: Record, offset: int, *, strict: bool) -> Join | None:
        name, _, text = record.body.partition(b" ")
        if name.decode() not in self._intake.lines:
            return None
        try:
            return self._intake.rest_body(name.decode(), text, record.received_us, offset)
        except BadBody:
            if strict:
                raise
            return None
