"""Detects another process that runs under the same instance name (pure).

A killed bridge leaves its last status in Redis, and a restored Redis has old ones. So only a status
that keeps changing, in place of this bridge's own, shows another bridge. Of two bridges with the
same name the later one ends.
"""

from collections.abc import Iterable

from bridge.core.peers import PeerStatus
from bridge.errors import Fatal


class NameTaken(Fatal):
    """Another bridge is running under the same name."""


class InstanceGuard:
    """Guards one bridge's name and numbers its statuses. Times in µs by the clock of Redis."""

    def __init__(self, me: PeerStatus) -> None:
        self.me = me
        self._other: PeerStatus | None = None  # written by another process under our name
        self._redis_us = 0

    def check(self, statuses: Iterable[PeerStatus], redis_us: int) -> None:
        """Check the statuses of all bridges, read at `redis_us`, before our next one is written.
        Raises NameTaken.
        """
        self._redis_us = redis_us
        if not self.me.started_us:
            self.me = self.me.model_copy(update={"started_us": redis_us})
        other = next((each for each in statuses if each.instance == self.me.instance), None)
        if other is None or other.session == self.me.session or other.stopped:
            return
        before, self._other = self._other, other
        # It was written again after ours had replaced it: its process is alive.
        is_alive = before and before.session == other.session and before.beat != other.beat
        if is_alive and _order(other) < _order(self.me):
            raise NameTaken(
                f"another bridge is running under the name {other.instance} (process {other.pid} "
                f"on {other.host}): give this one another `instance` in its configuration"
            )

    def next_status(self, **facts: object) -> PeerStatus:
        """This bridge's next status, with these fields."""
        update = {**facts, "beat": self.me.beat + 1, "at_us": self._redis_us}
        self.me = self.me.model_copy(update=update)
        return self.me


def _order(status: PeerStatus) -> tuple[int, str]:
    # The session decides between two that started in the same microsecond: only one may end.
    return status.started_us, status.session
