"""Research: the entries of a stream between two times or IDs, as typed deliveries, from Redis.

    from consumers import read

    for delivery in read("trade.SOL_USDC", "1h", of=Trade):
        print(delivery.event.price)

    frame = read("trade.SOL_USDC", "2026-09-02T16:00", "2026-09-02T17:00").to_pandas()

In a handler it reads from the worker's own Redis. It affects no group and no live worker. Iterate
with `for` in a script or a notebook, with `async for` in an event loop, which must not be blocked.
It reads page by page, so a range may be larger than memory; only a frame holds the whole range.
"""

import contextlib
import warnings
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from pydantic import ValidationError
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bridge.contract.entry import BadEntry, decode
from bridge.contract.events import Event
from bridge.errors import ConfigError, Transient
from bridge.runtime.config import Config, load_config
from bridge.runtime.masking import masked_url
from bridge.runtime.redis_client import connect, connect_blocking, resolve_url
from bridge.runtime.redis_url import replica_url
from bridge.runtime.replica import COMMAND_TIMEOUT_S
from bridge.runtime.time_range import BEGINNING, Bound, point
from consumers.kit.api.consumer import Delivery
from consumers.kit.handling.entry import ParsedEntry
from consumers.kit.reading import columns, frames
from consumers.kit.reading.range_scan import FIRST, LAST, Command, RangeScan
from consumers.kit.redis.keys import Keys

E = TypeVar("E", bound=Event)

_CLIENT_NAME = "reading"
_NO_ANSWER = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)
_workers_own: ContextVar[Config | None] = ContextVar("workers_own", default=None)


class NotUnderstood(UserWarning):
    """An entry does not fit the contract, and was skipped."""


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
    """The entries of a stream from `start` (included) to `end` (excluded).

    A bound is an entry ID, a time (ISO text, UTC if it names no zone, or a datetime with its zone),
    an age (`"2h"`, or a timedelta), `"beginning"` or `"new"`. None: from the stream's beginning, to
    its end.
    `of` keeps the events of one class. The Redis server is that of the configuration
    (`config.yaml`, `BRIDGE_REDIS__URL`), unless `url` and `key_prefix` are given.

    Nothing is read before the first iteration; each iteration reads again. Raises ConfigError for
    an invalid bound or an unknown stream, Transient if Redis does not answer.
    """
    settings = _settings(config, url, key_prefix)
    where = resolve_url(settings)
    now = datetime.now(UTC)
    return Reading(
        stream,
        FIRST if start is None else point(start, now).id,
        LAST if end is None else _before(point(end, now).id),
        of,
        where,
        Keys(settings.redis.keys),
        replica_url(where) if settings.redis.read_from == "replica" else None,
    )


def _before(entry_id: str) -> str:
    """The end of a range that excludes this ID. Redis refuses `(0-0`, and no entry has that ID."""
    return entry_id if entry_id == BEGINNING else f"({entry_id}"


@contextlib.contextmanager
def reading_from(config: Config) -> Iterator[None]:
    """Make `read` use this configuration's Redis, in the block and in tasks started there."""
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
    if not changes:
        return given
    try:
        redis = given.redis.at(changes)
    except ValidationError as error:
        raise ConfigError(f"read: {error.errors()[0]['msg']}") from None
    return given.model_copy(update={"redis": redis})


class Reading(Generic[E]):
    """A range of a stream, which can be iterated several times."""

    def __init__(
        self,
        stream: str,
        start: str,
        end: str,
        of: type[E],
        url: str,
        keys: Keys,
        replica: str | None = None,
    ) -> None:
        self.stream = stream
        self._start = start
        self._end = end
        self._of = of
        self._url = url
        self._keys = keys
        self._replica = replica  # URL of a replica, used while its pages are full

    def __iter__(self) -> Iterator[Delivery[E]]:
        scan = RangeScan(self.stream, self._keys, self._start, self._end)
        with self._client_errors(), contextlib.ExitStack() as stack:
            primary = stack.enter_context(connect_blocking(self._url, name=_CLIENT_NAME))
            replica: Any = None
            if self._replica is not None:
                replica = connect_blocking(
                    self._replica, name=_CLIENT_NAME, command_timeout_s=COMMAND_TIMEOUT_S
                )
                stack.enter_context(replica)
            while not scan.is_done:
                replies: Sequence[Any] = ()
                if replica is not None and scan.is_begun:
                    with contextlib.suppress(*_NO_ANSWER):
                        replies = _execute(replica, scan.commands())
                if not scan.is_whole(replies):  # the replica lags or does not answer
                    replica = replica if not scan.is_begun else None
                    replies = _execute(primary, scan.commands())
                yield from self._deliveries(scan.take(replies))

    async def __aiter__(self) -> AsyncGenerator[Delivery[E], None]:
        scan = RangeScan(self.stream, self._keys, self._start, self._end)
        with self._client_errors():
            async with contextlib.AsyncExitStack() as stack:
                primary = connect(self._url, name=_CLIENT_NAME, decode_responses=True)
                await stack.enter_async_context(primary)
                replica: Any = None
                if self._replica is not None:
                    replica = connect(
                        self._replica,
                        name=_CLIENT_NAME,
                        decode_responses=True,
                        command_timeout_s=COMMAND_TIMEOUT_S,
                    )
                    await stack.enter_async_context(replica)
                while not scan.is_done:
                    replies: Sequence[Any] = ()
                    if replica is not None and scan.is_begun:
                        with contextlib.suppress(*_NO_ANSWER):
                            replies = await _execute_async(replica, scan.commands())
                    if not scan.is_whole(replies):
                        replica = replica if not scan.is_begun else None
                        replies = await _execute_async(primary, scan.commands())
                    for delivery in self._deliveries(scan.take(replies)):
                        yield delivery

    def to_pandas(self, decimals: frames.Decimals = "text") -> Any:
        """The range as a pandas DataFrame; one row per entry, times in UTC.

        `decimals`: "text" as the exchange wrote them, "float", or "decimal" for exact arithmetic.
        """
        return frames.pandas_frame(self._columns(), self._rows(), decimals)

    def to_polars(self, decimals: frames.Decimals = "text") -> Any:
        """The range as a Polars DataFrame; see `to_pandas`."""
        return frames.polars_frame(self._columns(), self._rows(), decimals)

    def _columns(self) -> tuple[columns.Column, ...]:
        models = columns.models_of(self.stream)
        chosen = tuple(model for model in models if issubclass(model, self._of))
        return columns.columns_of_models(chosen or (self._of,))

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        names = self._columns()
        for delivery in self:
            yield columns.row_of(names, delivery.entry_id, delivery.event)

    def _deliveries(self, entries: Iterable[ParsedEntry]) -> Iterator[Delivery[E]]:
        for entry_id, fields in entries:
            try:
                event = decode(fields)
            except BadEntry as error:
                text = f"{self.stream} {entry_id} was passed over: {error}"
                warnings.warn(text, NotUnderstood, stacklevel=3)
                continue
            if isinstance(event, self._of):
                yield Delivery(self.stream, entry_id, event)

    @contextlib.contextmanager
    def _client_errors(self) -> Iterator[None]:
        """Convert the Redis client's errors to ConfigError and Transient."""
        try:
            yield
        except (ResponseError, AuthenticationError) as error:
            raise ConfigError(f"Redis at {masked_url(self._url)} refuses: {error}") from error
        except RedisError as error:
            raise Transient(f"Redis at {masked_url(self._url)} does not answer: {error}") from error


def _execute(client: Any, commands: Iterable[Command]) -> Sequence[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: Sequence[Any] = pipeline.execute(raise_on_error=False)
    return replies


async def _execute_async(client: Any, commands: Iterable[Command]) -> Sequence[Any]:
    async with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: Sequence[Any] = await pipeline.execute(raise_on_error=False)
    return replies
