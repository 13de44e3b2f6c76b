"""A worker's pages for its supervisor, `/healthz` and `/readyz`, from the state of this process."""

from collections.abc import Sequence
from enum import StrEnum

from bridge.metrics.health import ALIVE, READY, alive, readiness
from bridge.metrics.pages import Page
from bridge.runtime.masking import masked_text
from consumers.kit.membership import Membership
from consumers.kit.redis_health import RedisHealth
from consumers.kit.worker.watchdog import Watchdog


class Reason(StrEnum):
    """The reason why a worker is not ready."""

    STARTING = "starting"
    REDIS_UNAVAILABLE = "redis_unavailable"
    NO_STREAMS = "no_streams"
    HANDLER_HANGS = "handler_hangs"


class WorkerPages:
    """The health pages, as of the last heartbeat. A sync handler that hangs blocks the event loop:
    then requests get no answer.
    """

    paths: Sequence[str] = (ALIVE, READY)

    def __init__(
        self, membership: Membership, redis: Sequence[RedisHealth], watchdog: Watchdog
    ) -> None:
        self._membership = membership
        self._redis = redis
        self._watchdog = watchdog

    async def page(self, path: str) -> Page:
        """The page at one of `paths`."""
        return alive() if path == ALIVE else readiness(self._reasons())

    def _reasons(self) -> list[tuple[str, str]]:
        texts: dict[Reason, str] = {}
        membership = self._membership
        if trouble := "; ".join(filter(None, (one.trouble for one in self._redis))):
            texts[Reason.REDIS_UNAVAILABLE] = f"Redis is unavailable: {masked_text(trouble)}"
        elif not membership.beats:
            texts[Reason.STARTING] = "no heartbeat has reached Redis yet"
        elif not membership.streams:
            texts[Reason.NO_STREAMS] = "no stream in the registry fits this worker's patterns"
        if self._watchdog.hangs:
            texts[Reason.HANDLER_HANGS] = "a handler is beyond its time limit"
        return [(reason.value, text) for reason, text in texts.items()]
