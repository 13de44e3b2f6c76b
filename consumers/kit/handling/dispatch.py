"""Decodes an entry, calls the right handler of a consumer, and counts.

An entry without a handler is not decoded. An entry that does not fit the contract (written by
another program, or by a newer bridge) reaches no handler: it is logged once per stream, and left in
`undecodable` for the batch runner.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from bridge.contract.entry import MODEL_BY_TYPE, BadEntry, decode, decode_flat_as
from bridge.contract.events import Event
from bridge.contract.streams import is_private
from consumers.kit.api.consumer import Consumer, Delivery, Missed, StopWorker
from consumers.kit.api.results import Results
from consumers.kit.api.routes import BATCH, handlers_of, takes_results
from consumers.kit.handling.calls import (
    check_returned,
    ends_more,
    finished,
    is_consumers,
    within_limit,
)
from consumers.kit.handling.entry import Entry, fields_of, stream_of
from consumers.kit.handling.failure import HandlerFailed, is_stdout_closed
from consumers.kit.stats import InHand, Stats

_log = structlog.get_logger()
_tuple = tuple.__new__  # faster: a NamedTuple's own constructor is a Python function


class Dispatcher:
    """Delivers entries to one consumer object."""

    def __init__(self, consumer: Consumer, stats: Stats) -> None:
        names = handlers_of(type(consumer))
        self._handlers = {model: Handler(getattr(consumer, name)) for model, name in names.items()}
        self.takes_lists = BATCH in names.values()
        self.takes_results = any(handler.takes_results for handler in self._handlers.values())
        self._consumer = consumer
        self._limit_s = consumer.time_limit_s
        self.undecodable: list[tuple[Entry, BadEntry]] = []  # of the last call
        self._stats = stats
        is_filtered = type(consumer).filter is not Consumer.filter
        self._filter = consumer.filter if is_filtered else None

    def hand(
        self, stream: str, entries: Sequence[Entry], results: Results | None = None
    ) -> Awaitable[None] | None:
        """Decode entries and call the handler: a list handler with all of them in one list, any
        other with the only entry given.

        Returns an awaitable for an async handler, else None. (Not a coroutine itself: for a sync
        handler one more await per entry costs more than the rest of this.) This call and the
        awaitable raise HandlerFailed, or the handler's StopWorker.
        """
        if self.undecodable:
            self.undecodable = []
        if not self.takes_lists:
            decoded = self.decoded(stream, entries[0])
            return None if decoded is None else self.call(decoded[0], (decoded[1],), results)
        deliveries: list[Delivery[Event]] = []
        handler = None
        for entry in entries:
            decoded = self.decoded(stream, entry)
            if decoded is not None:
                handler, delivery = decoded
                deliveries.append(delivery)
        return None if handler is None else self.call(handler, deliveries, results)

    def decoded(self, stream: str, entry: Entry) -> "tuple[Handler, Delivery[Event]] | None":
        """The handler of an entry, and its decoded delivery. None if no handler gets it. Effect:
        adds an undecodable entry to `undecodable`. Raises HandlerFailed if `filter` fails."""
        entry_id, flat = entry
        if type(entry) is not tuple:
            stream = stream_of(entry, stream)
        # The bridge writes the type once, as the first field. In any other entry the last field
        # named `type` counts.
        is_usual = flat and flat[0] == "type" and "type" not in flat[2::2]
        model = MODEL_BY_TYPE.get(flat[1] if is_usual else fields_of(entry).get("type", ""))
        handler = self._handlers.get(model) if model else None
        if model is not None and handler is None:
            return None  # a known type without a handler: decoding would be wasted
        if model is not None and self._filter is not None and not self._passes(stream, entry):
            return None
        try:
            event = decode(fields_of(entry)) if model is None else decode_flat_as(model, flat)
        except BadEntry as error:
            self._note_undecodable(stream, entry, error)
            return None
        assert handler is not None
        return handler, _tuple(Delivery, (stream, entry_id, event))

    def call(
        self, handler: "Handler", deliveries: Sequence[Delivery[Event]], results: Results | None
    ) -> Awaitable[None] | None:
        """Call the handler; returns and raises as `hand`."""
        what = deliveries if self.takes_lists else deliveries[0]
        self._stats.running = deliveries[0]
        try:
            waiting = handler.call(what, results) if handler.takes_results else handler.call(what)
            if waiting is not None:
                check_returned(waiting)
        except StopWorker:
            raise
        except BaseException as error:
            # A sync handler may raise anything, CancelledError of an event loop of its own
            # included: that is a failure of this entry, and must not end the worker.
            if ends_more(error):
                raise
            if is_stdout_closed(error):
                raise StopWorker from None
            raise _failed(deliveries) from error
        finally:
            self._stats.running = None
        if waiting is not None and inspect.isawaitable(waiting):
            call = self._stats.begin(deliveries[0].stream, deliveries[0].entry_id)
            return self._finish(waiting, deliveries, call)
        self._handled(deliveries)
        return None

    async def report_missed(self, missed: Missed) -> None:
        """Log missed entries and call the consumer's `on_missed`, whose failure is logged and not
        retried. Raises StopWorker."""
        _log.warning(
            "entries_missed", stream=missed.stream, entries=missed.entries, before=missed.before_id
        )
        call = self._stats.begin(missed.stream, missed.before_id)
        try:
            await finished(self._consumer.on_missed(missed), self._limit_s, call)
        except StopWorker:
            raise
        except BaseException as error:
            if not is_consumers(error):
                raise
            failed = HandlerFailed(missed.stream, missed.before_id)
            failed.__cause__ = error
            failed.log(1, 0)
        finally:
            self._stats.end(call)

    async def _finish(
        self, waiting: Awaitable[Any], deliveries: Sequence[Delivery[Event]], call: InHand
    ) -> None:
        try:
            check_returned(await within_limit(waiting, self._limit_s, call))
        except StopWorker:
            raise
        except BaseException as error:
            if not is_consumers(error):
                raise
            if is_stdout_closed(error):
                raise StopWorker from None
            raise _failed(deliveries) from error
        finally:
            self._stats.end(call)
        self._handled(deliveries)

    def _handled(self, deliveries: Sequence[Delivery[Event]]) -> None:
        for delivery in deliveries:
            self._stats.received(delivery.event.__dict__.get("received_us"))

    def _passes(self, stream: str, entry: Entry) -> bool:
        assert self._filter is not None
        fields = fields_of(entry)
        try:
            passes = self._filter(stream, fields)
            if passes is None:  # a forgotten `return` would silently skip all entries
                raise TypeError("filter gave None: return True or False")  # noqa: TRY301
            return bool(passes)
        except StopWorker:
            raise
        except Exception as error:
            # `filter` may read fields that another program's entry lacks: that is no failure.
            try:
                decode(fields)
            except BadEntry:
                return True  # the caller decodes it again and reports it as undecodable
            raise HandlerFailed(stream, entry[0]) from error

    def _note_undecodable(self, stream: str, entry: Entry, error: BadEntry) -> None:
        self.undecodable.append((entry, error))
        if self._stats.is_first_undecodable(stream):
            reason = "not of the contract" if is_private(stream) else str(error)
            _log.warning("entry_not_understood", stream=stream, entry_id=entry[0], reason=reason)


def _failed(deliveries: Sequence[Delivery[Event]]) -> HandlerFailed:
    first = deliveries[0]
    return HandlerFailed(first.stream, first.entry_id, len(deliveries))


class Handler:
    """A bound method, and whether it takes results."""

    __slots__ = ("call", "takes_results")

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.takes_results = takes_results(call)
