"""Deafness told in seconds after a moment."""

from bridge.pipeline.deafness import Deafness
from bridge.pipeline.past import Deaf

NOW_US = 1_790_915_531_000_000
SECOND_US = 1_000_000
ORDERS = "account.orderUpdate"
NAMES = [ORDERS]


def at(seconds: float) -> int:
    return NOW_US + int(seconds * SECOND_US)


class Subject(Deafness):
    """Deafness with connections that are opened and answered in one."""

    def listen(self, connection: int, seconds: float) -> list[Deaf]:
        self.opened(connection, NAMES)
        return list(self.answered(connection, at(seconds), at(seconds)))

    def hear(self, connection: int, seconds: float) -> None:
        self.ears[connection].newest_us = at(seconds)

    def lose(self, connection: int) -> list[Deaf]:
        return self.lost(connection, "connection lost")[1]


def deaf(from_s: float, to_s: float, cause: str = "connection lost") -> list[Deaf]:
    return [Deaf(ORDERS, at(from_s), at(to_s), cause)]
