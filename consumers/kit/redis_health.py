"""Whether Redis answers: outages are waited out and logged here.

A worker has several connections, and an outage meets them all: it is logged once, and its end once.
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
    """What the last command of each connection met; of one shard, where there are several."""

    def __init__(self, url: str, shard: int | None = None) -> None:
        self._where = masked_url(url)
        self._shard = shard
        self._log = _log if shard is None else _log.bind(shard=shard)
        self._failures: dict[str, int] = {}  # in a row, by connection; no entry where it works
        self._error = ""  # the last one

    @property
    def trouble(self) -> str:
        """Why a connection does not work; empty where all do."""
        if not self._failures:
            return ""
        return self._error if self._shard is None else f"shard {self._shard}: {self._error}"

    def up(self, connection: str) -> None:
        """A command of this connection went through."""
        if self._failures.pop(connection, 0) and not self._failures:
            self._log.info("redis_connected", redis=self._where)

    async def down(self, connection: str, error: RedisError, stop: Stop) -> None:
        """A command failed: log it once, and wait before the next attempt, at most a second.

        Raises ConfigError where trying again cannot help: a wrong password, a command that this
        user may not run, or the server does not have.
        """
        is_denied = isinstance(error, NoPermissionError) or meaning(error) is Refusal.NOT_ALLOWED
        if is_denied or isinstance(error, AuthenticationError):
            advice = f": {LOGIN_ADVICE}" if isinstance(error, AuthenticationError) else ""
            said = str(error).rstrip(".")
            raise ConfigError(f"Redis at {self._where} refuses us: {said}{advice}") from error
        if isinstance(error, DataError):
            raise ConfigError(f"the client cannot send what it was given: {error}") from error
        if not self._failures:
            self._log.warning(
                "redis_unavailable", redis=self._where, error=str(error), then="trying again"
            )
        self._error = str(error) or type(error).__name__
        self._failures[connection] = failures = self._failures.get(connection, 0) + 1
        await stop.wait(min(_LONGEST_WAIT_S, retry_delay_s(failures)))
