"""From an entry's fields to the right handler of a consumer, and the count of what passed.

An entry that no handler wants is not even decoded. One that is not of the contract (written by
someone else, or by a newer bridge) is counted, told of once for each stream, and passed over.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from bridge.contract.entry import MODEL_BY_TYPE, BadEntry, decode
from bridge.contract.events import Event
from consumers.consumer import Consumer, Delivery, Missed, StopWorker
from consumers.deadletter import error_text, is_private, place
from consumers.meter import Meter
from consumers.results import Results
from consumers.routes import BATCH, handlers_of, takes_results

_log = structlog.get_logger()

Entry = tuple[str, dict[str, str]]


class HandlerFailed(Exception):
    """A handler raised; which entry it was (of a batch: the first), and what it raised, chained."""

    def __init__(self, stream: str, entry_id: str, entries: int = 1) -> None:
        super().__init__(f"handler failed on {stream} {entry_id}")
        self.stream = stream
        self.entry_id = entry_id
        self.entries = entries

    def tell(self, failures: int, retry_s: float) -> None:
        """Log it; the text of the error only where the stream is public."""
        _log.warning(
            "handler_failed",
            stream=self.stream,
            entry_id=self.entry_id,
            entries=self.entries,
            error=error_text(self.stream, self.__cause__),
            at=place(self.__cause__),
            failures=failures,
            retry_s=retry_s,
        )


class TookTooLong(Exception):
    """An async handler was cancelled at its time limit."""


class Dispatcher:
    """Hands entries to one consumer object."""

    def __init__(self, consumer: Consumer, meter: Meter) -> None:
        names = handlers_of(type(consumer))
        self._methods = {model: _Handler(getattr(consumer, name)) for model, name in names.items()}
        self.takes_batches = BATCH in names.values()
        self.takes_results = any(handler.takes_results for handler in self._methods.values())
        self.in_hand: tuple[str, str] | None = None  # stream and entry ID, while a handler has it
        self._consumer = consumer
        self._limit_s = consumer.time_limit_s
        self._meter = meter

    async def handle(
        self, stream: str, entries: Sequence[Entry], results: Results | None = None
    ) -> None:
        """Hand over all of these in their order: as one list where the consumer takes lists, else
        each alone. Raises HandlerFailed, or the handler's StopWorker.
        """
        for portion in [entries] if self.takes_batches else ([entry] for entry in entries):
            if (rest := self.hand(stream, portion, results)) is not None:
                await rest

    def hand(
        self, stream: str, entries: Sequence[Entry], results: Results | None = None
    ) -> Awaitable[None] | None:
        """Decode entries and hand over what is wanted of them: several only to a consumer that
        takes lists. What an async handler has still to do is given back, to be awaited. (Nothing is
        awaited for nothing: for an entry alone that is dear.) Raises as `handle` does.
        """
        deliveries: list[Delivery[Event]] = []
        handler = None
        for entry_id, fields in entries:
            found = self._decoded(stream, entry_id, fields)
            if found is not None:
                handler, event = found
                deliveries.append(Delivery(stream, entry_id, event))
        if handler is None:
            return None
        what = deliveries if self.takes_batches else deliveries[0]
        self.in_hand = stream, deliveries[0].entry_id
        try:
            waiting = handler.call(what, results) if handler.takes_results else handler.call(what)
        except StopWorker:
            self.in_hand = None
            raise
        except (Exception, asyncio.CancelledError) as error:
            # Whatever a handler raises is its own entry's trouble.
            raise self._failed(deliveries) from error
        if waiting is not None and inspect.isawaitable(waiting):
            return self._rest(waiting, deliveries)
        self._handed(deliveries)
        return None

    async def _rest(self, waiting: Awaitable[Any], deliveries: Sequence[Delivery[Event]]) -> None:
        try:
            await self._within_limit(waiting)
        except StopWorker:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # it is this worker that is to end
            raise self._failed(deliveries) from error  # of something that the handler awaits
        except Exception as error:
            raise self._failed(deliveries) from error
        finally:
            self.in_hand = None
        self._handed(deliveries)

    def _handed(self, deliveries: Sequence[Delivery[Event]]) -> None:
        self.in_hand = None
        for delivery in deliveries:
            self._meter.heard(delivery.event.__dict__["received_us"])

    def _failed(self, deliveries: Sequence[Delivery[Event]]) -> HandlerFailed:
        self.in_hand = None
        first = deliveries[0]
        return HandlerFailed(first.stream, first.entry_id, len(deliveries))

    async def _within_limit(self, waiting: Awaitable[Any]) -> None:
        try:
            async with asyncio.timeout(self._limit_s) as limit:
                await waiting
        except TimeoutError as error:
            if not limit.expired():
                raise  # the handler's own
            raise TookTooLong(f"not done within its time limit of {self._limit_s:g} s") from error

    async def tell_missed(self, missed: Missed) -> None:
        """Let the consumer know, if it wants to. What it raises is logged, and not tried again."""
        _log.warning(
            "entries_missed", stream=missed.stream, entries=missed.entries, before=missed.before_id
        )
        try:
            waiting: Any = self._consumer.on_missed(missed)
            if inspect.isawaitable(waiting):
                await self._within_limit(waiting)
        except StopWorker:
            raise
        except Exception as error:  # noqa: BLE001 - a handler's own trouble
            failed = HandlerFailed(missed.stream, missed.before_id)
            failed.__cause__ = error
            failed.tell(1, 0)

    def _decoded(
        self, stream: str, entry_id: str, fields: Mapping[str, str]
    ) -> "tuple[_Handler, Event] | None":
        model = MODEL_BY_TYPE.get(fields.get("type", ""))
        handler = self._methods.get(model) if model else None
        if model is not None and handler is None:
            return None
        try:
            event = decode(fields)
        except BadEntry as error:
            self._bad(stream, entry_id, error)
            return None
        assert handler is not None
        return handler, event

    def _bad(self, stream: str, entry_id: str, error: BadEntry) -> None:
        if self._meter.undecodable(stream) == 1:
            reason = "not of the contract" if is_private(stream) else str(error)
            _log.warning("entry_not_understood", stream=stream, entry_id=entry_id, reason=reason)


class _Handler:
    """A bound method, and whether it asks for results."""

    __slots__ = ("call", "takes_results")

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.takes_results = takes_results(call)
