"""Being told to stop, and being without Redis: both are waited out here.

An outage is said once, however many tasks meet it, and its end once.
"""

import asyncio
import contextlib

import structlog
from redis.exceptions import AuthenticationError, DataError, NoPermissionError, RedisError

from bridge.errors import ConfigError
from bridge.runtime.masking import masked_url
from consumers.policy import retry_delay_s

_log = structlog.get_logger()


class Stop:
    """The wish that the worker end; set once, waited for by all."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Sleep that long, or until told to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)


class Link:
    """Whether Redis answers."""

    def __init__(self, url: str) -> None:
        self._where = masked_url(url)
        self._failures: dict[str, int] = {}  # by connection

    def up(self, connection: str) -> None:
        """A command went through."""
        if self._failures.pop(connection, 0) and not self._failures:
            _log.info("redis_back", redis=self._where)

    async def down(self, connection: str, error: RedisError, stop: Stop) -> None:
        """A command failed: say so once, and wait before the next attempt.

        Raises ConfigError where trying again cannot help: a wrong password, a missing right.
        """
        if isinstance(error, AuthenticationError | NoPermissionError):
            raise ConfigError(f"Redis at {self._where} refuses us: {error}") from error
        if isinstance(error, DataError):
            raise ConfigError(f"the client cannot send what it was given: {error}") from error
        if not self._failures:
            _log.warning("redis_away", redis=self._where, error=str(error), then="trying again")
        self._failures[connection] = failures = self._failures.get(connection, 0) + 1
        await stop.wait(min(1.0, retry_delay_s(failures)))
