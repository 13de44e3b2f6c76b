"""From an entry's fields to the right handler of a consumer, and the count of what passed.

An entry that no handler wants is not even decoded. One that is not of the contract (written by
someone else, or by a newer bridge) is counted, told of once for each stream, and passed over.
"""

import inspect
import traceback
from collections.abc import Mapping

import structlog

from bridge.contract.entry import MODEL_BY_TYPE, BadEntry, decode
from consumers.consumer import Consumer, Delivery, StopWorker, handlers_of
from consumers.meter import Meter

_log = structlog.get_logger()


class HandlerFailed(Exception):
    """A handler raised; which entry it was, and (chained) what it raised."""

    def __init__(self, stream: str, entry_id: str) -> None:
        super().__init__(f"handler failed on {stream} {entry_id}")
        self.stream = stream
        self.entry_id = entry_id

    def tell(self, failures: int, retry_s: float) -> None:
        """Log it; the text of the error only where the stream is public."""
        cause = self.__cause__
        private = self.stream.startswith("account.")
        _log.warning(
            "handler_failed",
            stream=self.stream,
            entry_id=self.entry_id,
            error=type(cause).__name__ if private else f"{type(cause).__name__}: {cause}",
            at=_place(cause),
            failures=failures,
            retry_s=retry_s,
        )


class Dispatcher:
    """Hands entries to one consumer object."""

    def __init__(self, consumer: Consumer, meter: Meter) -> None:
        self._methods = {
            model: getattr(consumer, name) for model, name in handlers_of(type(consumer)).items()
        }
        self._meter = meter

    async def handle(self, stream: str, entry_id: str, fields: Mapping[str, str]) -> None:
        """Decode and handle one entry. Raises HandlerFailed, or the handler's StopWorker."""
        model = MODEL_BY_TYPE.get(fields.get("type", ""))
        method = self._methods.get(model) if model else None
        if model is not None and method is None:
            return
        try:
            event = decode(fields)
        except BadEntry as error:
            self._bad(stream, entry_id, error)
            return
        assert method is not None
        try:
            waiting = method(Delivery(stream, entry_id, event))
            if waiting is not None and inspect.isawaitable(waiting):
                await waiting
        except StopWorker:
            raise
        except Exception as error:  # whatever a handler raises is its own entry's trouble
            raise HandlerFailed(stream, entry_id) from error
        self._meter.heard(event.__dict__["received_us"])

    def _bad(self, stream: str, entry_id: str, error: BadEntry) -> None:
        if self._meter.undecodable(stream) == 1:
            private = stream.startswith("account.")
            reason = "not of the contract" if private else str(error)
            _log.warning("entry_not_understood", stream=stream, entry_id=entry_id, reason=reason)


def _place(error: BaseException | None) -> str:
    """File and line that raised it: where a handler's author looks first."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
