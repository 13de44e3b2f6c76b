"""Says to an intake what the journal's records say (pure: the records carry their times)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.journal.record import Kind, Record, read_answer
from bridge.pipeline.book import Join
from bridge.pipeline.intake import Intake
from bridge.pipeline.past import NOT_IN_JOURNAL
from bridge.pipeline.trade_holes import Reach
from bridge.protocol.rest import BadBody

DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # of a record's body


class Player:
    """Plays records to one intake. Call `begin` where reading starts anew.

    `damaged` counts records that could not be made sense of. Connections whose numbers are negative
    are not in the journal, and nothing it says is about them.
    """

    def __init__(self, intake: Intake) -> None:
        self.damaged = 0
        self._intake = intake
        self._fresh = True

    def begin(self) -> None:
        """The next record is the first of a reading: a segment's state counts then, only then."""
        self._fresh = True

    def apply(self, record: Record, offset: int, *, strict: bool) -> Join | Reach | None:
        """One record. A REST body answers what became of it; a bad one raises BadBody if `strict`
        (it has just come), and is passed over otherwise (it was refused when it came). Damage is
        passed over and counted.
        """
        try:
            return self._apply(record, offset, strict=strict)
        except BadBody:
            raise
        except DAMAGE:
            if strict:
                raise
            self.damaged += 1
            return None

    def _apply(self, record: Record, offset: int, *, strict: bool) -> Join | Reach | None:
        intake, number = self._intake, record.connection
        fresh, self._fresh = self._fresh, False
        match record.kind:
            case Kind.FRAME | Kind.BINARY:
                intake.hear(record.body, record.received_us, number, offset)
            case Kind.OPENED:
                intake.opened(number, json.loads(record.body)["streams"])
            case Kind.CHANGED | Kind.ANSWERED | Kind.DOUBTED | Kind.LOST:
                self._connection(record, offset)
            case Kind.MARKS:
                intake.resume(json.loads(record.body), record.received_us, offset, number)
            case Kind.STARTED:
                intake.started(record.received_us, offset)
            case Kind.UNWRITTEN:
                spans = {name: (int(a), int(b)) for name, (a, b) in json.loads(record.body).items()}
                intake.lacks(spans, NOT_IN_JOURNAL, offset)
            case Kind.STATE if fresh:
                self._restore(**json.loads(record.body))
            case Kind.REST:
                return self._body(record, offset, strict=strict)
        return None

    def _connection(self, record: Record, offset: int) -> None:
        """What became of a connection that is open."""
        intake, number, us = self._intake, record.connection, record.received_us
        if record.kind is Kind.ANSWERED:
            at_us, unasked, until_us = read_answer(record.body, us)
            intake.answered(number, at_us, us, offset, unasked, until_us)
            return
        facts = json.loads(record.body)
        match record.kind:
            case Kind.CHANGED:
                intake.changed(number, facts["streams"], us, offset)
            case Kind.DOUBTED:
                intake.doubted(number, facts["stream"], int(facts["since_us"]), us, offset)
            case _:
                intake.lost(number, facts["cause"], us, offset)

    def _restore(
        self,
        connections: Mapping[str, Mapping[str, int]] | None = None,
        deafness: Mapping[str, Any] | None = None,
        sparse: Sequence[str] = (),
    ) -> None:
        self._intake.deafness.restore(connections, deafness)
        self._intake.restore_sparse(sparse)

    def _body(self, record: Record, offset: int, *, strict: bool) -> Join | Reach | None:
        place, _, text = record.body.partition(b" ")
        name, _, what = place.decode().partition("/")
        if name not in self._intake.lines:
            return None
        try:
            return self._intake.rest_body(name, text, record.received_us, offset, what)
        except BadBody:
            if strict:
                raise
            return None
