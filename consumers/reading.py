"""Research: what a stream holds between two times or IDs, as typed deliveries, straight from Redis.

    from consumers import read

    for delivery in read("trade.SOL_USDC", "1h", of=Trade):
        print(delivery.event.price)

    frame = read("trade.SOL_USDC", "2026-09-02T16:00", "2026-09-02T17:00").to_pandas()

In a handler it reads from the worker's own Redis. It touches no group and no live worker. Iterate
with `for` in a script or a notebook, with `async for` where a loop runs and must not wait. It reads
page by page, so a range may be larger than memory; only a frame holds all of it.
"""

import contextlib
import warnings
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from bridge.contract.entry import BadEntry, decode
from bridge.contract.events import Event
from bridge.errors import ConfigError, Transient
from bridge.runtime.config import Config, load_config
from bridge.runtime.masking import masked_url
from bridge.runtime.redis_client import connect, connect_blocking, resolve_url
from consumers import columns, frames
from consumers.consumer import Delivery
from consumers.keys import Keys
from consumers.policy import ago
from consumers.span import Bound, bound_id
from consumers.walk import FIRST, LAST, Entry, Walk

E = TypeVar("E", bound=Event)

_CLIENT_NAME = "reading"
_workers_own: ContextVar[Config | None] = ContextVar("workers_own", default=None)


class NotUnderstood(UserWarning):
    """An entry is not of the contract, and was passed over."""


@overload
def read(
    stream: str,
    start: Bound = None,
    end: Bound = None,
    *,
    of: type[E],
    url: str | None = None,
    key_prefix: str | None = None,
    config: str | Path | None = None,
) -> "Reading[E]": ...


@overload
def read(
    stream: str,
    start: Bound = None,
    end: Bound = None,
    *,
    url: str | None = None,
    key_prefix: str | None = None,
    config: str | Path | None = None,
) -> "Reading[Event]": ...


def read(
    stream: str,
    start: Bound = None,
    end: Bound = None,
    *,
    of: type[Any] = Event,
    url: str | None = None,
    key_prefix: str | None = None,
    config: str | Path | None = None,
) -> "Reading[Any]":
    """The entries of a stream from `start` up to, and without, `end`.

    A bound is an entry ID, a time (ISO text, UTC where it names no zone, or a datetime with its
    zone), or how long ago (`"2h"`, or a timedelta). None: from the stream's beginning, to its end.
    `of` keeps the events of one class. Which Redis: as for everything here (`config.yaml`,
    `BRIDGE_REDIS__URL`), or `url` and `key_prefix`.

    Nothing is read before the first iteration, and each one reads anew. Raises ConfigError for a
    bound or a stream that cannot be, Transient where Redis does not answer.
    """
    settings = _settings(config, url, key_prefix)
    now = datetime.now(UTC)
    return Reading(
        stream,
        FIRST if start is None else _id(start, now),
        LAST if end is None else "(" + _id(end, now),
        of,
        resolve_url(settings),
        Keys(settings.redis.key_prefix),
    )


def _id(bound: str | datetime | timedelta, now: datetime) -> str:
    return bound_id((isinstance(bound, str) and ago(bound)) or bound, now)


@contextlib.contextmanager
def reading_from(config: Config) -> Iterator[None]:
    """Within it, and in the tasks begun there, `read` reads from this configuration's Redis."""
    before = _workers_own.set(config)
    try:
        yield
    finally:
        _workers_own.reset(before)


def _settings(config: str | Path | None, url: str | None, key_prefix: str | None) -> Config:
    own = _workers_own.get()
    given = load_config(config) if own is None or config is not None else own
    changes: dict[str, str] = {}
    if url is not None:
        changes["url"] = url
    if key_prefix is not None:
        changes["key_prefix"] = key_prefix
    return given.model_copy(update={"redis": given.redis.model_copy(update=changes)})


class Reading(Generic[E]):
    """A range of a stream, to iterate as often as you like."""

    def __init__(
        self, stream: str, start: str, end: str, of: type[E], url: str, keys: Keys
    ) -> None:
        self.stream = stream
        self._start = start
        self._end = end
        self._of = of
        self._url = url
        self._keys = keys

    def __iter__(self) -> Iterator[Delivery[E]]:
        walk = Walk(self.stream, self._keys, self._start, self._end)
        with self._told(), connect_blocking(self._url, name=_CLIENT_NAME) as client:
            while not walk.is_done:
                with client.pipeline(transaction=False) as pipeline:
                    for command in walk.ask():
                        pipeline.execute_command(*command)
                    replies = pipeline.execute(raise_on_error=False)
                yield from self._deliveries(walk.take(replies))

    async def __aiter__(self) -> AsyncGenerator[Delivery[E], None]:
        walk = Walk(self.stream, self._keys, self._start, self._end)
        with self._told():
            async with connect(self._url, name=_CLIENT_NAME, decode_responses=True) as client:
                while not walk.is_done:
                    async with client.pipeline(transaction=False) as pipeline:
                        for command in walk.ask():
                            pipeline.execute_command(*command)
                        replies = await pipeline.execute(raise_on_error=False)
                    for delivery in self._deliveries(walk.take(replies)):
                        yield delivery

    def to_pandas(self, decimals: frames.Decimals = "text") -> Any:
        """All of it as a pandas DataFrame; one row an entry, times in UTC.

        `decimals`: "text" as the exchange wrote them, "float", or "decimal" for exact arithmetic.
        """
        return frames.pandas_frame(self._columns(), self._rows(), decimals)

    def to_polars(self, decimals: frames.Decimals = "text") -> Any:
        """The same as a Polars DataFrame."""
        return frames.polars_frame(self._columns(), self._rows(), decimals)

    def _columns(self) -> tuple[columns.Column, ...]:
        models = columns.models_of(self.stream)
        chosen = tuple(model for model in models if issubclass(model, self._of))
        return columns.columns_of(chosen or (self._of,))

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        names = self._columns()
        for delivery in self:
            yield columns.row(names, delivery.entry_id, delivery.event)

    def _deliveries(self, entries: Iterable[Entry]) -> Iterator[Delivery[E]]:
        for entry_id, fields in entries:
            try:
                event = decode(fields)
            except BadEntry as error:
                said = f"{self.stream} {entry_id} was passed over: {error}"
                warnings.warn(said, NotUnderstood, stacklevel=3)
                continue
            if isinstance(event, self._of):
                yield Delivery(self.stream, entry_id, event)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What the client raises, in a sentence."""
        try:
            yield
        except (ResponseError, AuthenticationError) as error:
            raise ConfigError(f"Redis at {masked_url(self._url)} refuses: {error}") from error
        except RedisError as error:
            raise Transient(f"Redis at {masked_url(self._url)} does not answer: {error}") from error
