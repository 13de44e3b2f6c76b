"""Concurrent calls of async handlers, up to a bound; calls of one key run one after another.

Calls start in the order of the entries, so that the delivered entries are always a prefix. The
caller settles or commits the outcome.
"""

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from bridge.contract.entry import BadEntry
from bridge.contract.events import Event
from consumers.kit.api.consumer import Consumer, Delivery, StopWorker
from consumers.kit.api.results import Results
from consumers.kit.handling.dispatch import Dispatcher, Handler
from consumers.kit.handling.entry import Entry, stream_of
from consumers.kit.handling.failure import HandlerFailed, cancelled_within
from consumers.kit.handling.limits import Limits
from consumers.kit.handling.yielding import Pace


@dataclass(slots=True, eq=False)
class Ran:
    """A delivered entry and its outcome."""

    stream: str
    entry: Entry
    results: Results
    failed: HandlerFailed | None = None
    undecodable: BadEntry | None = None
    is_over: bool = False


def has_key(consumer: Consumer) -> bool:
    """Whether the consumer defines `key`: then calls within one stream may run concurrently."""
    return type(consumer).key is not Consumer.key


class AtOnce:
    """The concurrent calls of one consumer object."""

    def __init__(self, consumer: Consumer, dispatcher: Dispatcher, limits: Limits) -> None:
        self._consumer = consumer
        self._dispatcher = dispatcher
        self._limits = limits
        self._has_key = has_key(consumer)
        self._has_ids = consumer.mode == "ordered"

    async def run(
        self, items: Sequence[tuple[str, Entry]], ran: list[Ran], pace: Pace, *, all_or_none: bool
    ) -> None:
        """Deliver entries, each with its stream; stop early when `pace` ends, and with
        `all_or_none` at the first failure.

        Effect: appends to `ran`. Raises StopWorker after all started calls have ended, or the
        cancellation of this task.
        """
        window = asyncio.Semaphore(self._limits.concurrency)
        tails: dict[Hashable, asyncio.Task[None]] = {}
        stopped: list[StopWorker] = []
        async with asyncio.TaskGroup() as tasks:
            for stream, entry in items:
                await window.acquire()
                has_failed = all_or_none and any(one.failed for one in ran)
                is_late = (now := time.monotonic()) > pace.next_at and await pace.keep(now)
                if stopped or has_failed or is_late:
                    break
                await self._limits.may_call()
                one = Ran(stream, entry, Results(in_order=self._has_ids))
                ran.append(one)
                try:
                    call = self._prepared(one)
                except StopWorker as stop:  # of `filter` or `key`; a TaskGroup would wrap it
                    stopped.append(stop)
                    break
                if call is None:
                    window.release()
                    continue
                handler, delivery, key = call
                before = None if key is None else tails.get(key)
                begun = self._finish(one, handler, delivery, before, stopped, window)
                task = tasks.create_task(begun)
                if key is not None:
                    tails[key] = task
        if stopped:
            raise stopped[0]
        for one in ran:
            if not one.is_over:  # a TaskGroup ignores a task that was cancelled from inside
                stream = stream_of(one.entry, one.stream)
                one.failed, one.is_over = cancelled_within(stream, one.entry[0]), True

    def _prepared(self, one: Ran) -> tuple[Handler, Delivery[Event], Hashable] | None:
        """Decode the entry: handler, delivery and key; None if there is no handler to call. Raises
        StopWorker."""
        self._dispatcher.undecodable = []
        try:
            decoded = self._dispatcher.decoded(one.stream, one.entry)
            if decoded is not None:
                handler, delivery = decoded
                return handler, delivery, self._key(delivery)
        except HandlerFailed as failed:
            one.failed = failed
        if self._dispatcher.undecodable:
            _, one.undecodable = self._dispatcher.undecodable[0]
        one.is_over = True
        return None

    def _key(self, delivery: Delivery[Event]) -> Hashable:
        if not self._has_key:
            return None
        try:
            key = self._consumer.key(delivery)
            hash(key)
        except StopWorker:
            raise
        except Exception as error:
            raise HandlerFailed(delivery.stream, delivery.entry_id) from error
        return key

    async def _finish(
        self,
        one: Ran,
        handler: Handler,
        delivery: Delivery[Event],
        before: asyncio.Task[None] | None,
        stopped: list[StopWorker],
        window: asyncio.Semaphore,
    ) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            async with self._limits.slots:
                if stopped:
                    return
                waiting = self._dispatcher.call(handler, [delivery], one.results)
                if waiting is not None:
                    await waiting
            one.is_over = True
        except HandlerFailed as failed:
            one.failed, one.is_over = failed, True
        except StopWorker as stop:
            stopped.append(stop)
        finally:
            window.release()
