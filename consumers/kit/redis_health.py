"""Availability of Redis: logs outages and waits before the next attempt.

A worker has several connections, which an outage affects together: its start and its end are
logged once each.
"""

import structlog
from redis.exceptions import AuthenticationError, DataError, NoPermissionError, RedisError

from bridge.errors import ConfigError
from bridge.runtime.masking import masked_url
from bridge.runtime.redis_url import LOGIN_ADVICE
from bridge.runtime.refusals import Refusal, meaning
from consumers.kit.policy import retry_delay_s
from consumers.kit.stop import Stop

_log = structlog.get_logger()
_LONGEST_WAIT_S = 1.0


class RedisHealth:
    """The outcome of the last command on each connection to Redis, or to one shard of it."""

    def __init__(self, url: str, shard: int | None = None) -> None:
        self._where = masked_url(url)
        self._shard = shard
        self._log = _log if shard is None else _log.bind(shard=shard)
        self._failures: dict[str, int] = {}  # connection → failures in a row; only failing ones
        self._error = ""  # the last one

    @property
    def trouble(self) -> str:
        """The error of a failing connection; empty if all work."""
        if not self._failures:
            return ""
        return self._error if self._shard is None else f"shard {self._shard}: {self._error}"

    def up(self, connection: str) -> None:
        """Record that a command on this connection succeeded."""
        if self._failures.pop(connection, 0) and not self._failures:
            self._log.info("redis_connected", redis=self._where)

    async def down(self, connection: str, error: RedisError, stop: Stop) -> None:
        """Record that a command failed: log it once, and wait, at most 1 s or until `stop`.

        Raises ConfigError if a retry cannot help: a wrong password, or a command that this user may
        not run or that the server does not have.
        """
        is_denied = isinstance(error, NoPermissionError) or meaning(error) is Refusal.NOT_ALLOWED
        if is_denied or isinstance(error, AuthenticationError):
            advice = f": {LOGIN_ADVICE}" if isinstance(error, AuthenticationError) else ""
            reason = str(error).rstrip(".")
            raise ConfigError(f"Redis at {self._where} refuses us: {reason}{advice}") from error
        if isinstance(error, DataError):
            raise ConfigError(f"the client cannot send what it was given: {error}") from error
        if not self._failures:
            self._log.warning(
                "redis_unavailable", redis=self._where, error=str(error), then="trying again"
            )
        self._error = str(error) or type(error).__name__
        self._failures[connection] = failures = self._failures.get(connection, 0) + 1
        await stop.wait(min(_LONGEST_WAIT_S, retry_delay_s(failures)))
