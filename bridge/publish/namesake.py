"""One name, one bridge: notices another process that says it is the same instance (pure).

A bridge that was killed leaves its last word behind, and a Redis that went back shows old ones; so
only a word that goes on being spoken, over ours, is another bridge. Of two, the later one goes.
"""

from collections.abc import Iterable

from bridge.errors import Fatal
from bridge.pipeline.peers import Word


class NameTaken(Fatal):
    """Another bridge is running under the same name."""


class Namesake:
    """Looks after one bridge's name. Times in µs by the clock of Redis."""

    def __init__(self, me: Word) -> None:
        self.me = me
        self._other: Word | None = None  # spoken by another process under our name
        self._redis_us = 0

    def look(self, words: Iterable[Word], redis_us: int) -> None:
        """What is said under all names, at `redis_us`. Raises NameTaken."""
        self._redis_us = redis_us
        if not self.me.started_us:
            self.me = self.me.model_copy(update={"started_us": redis_us})
        other = next((word for word in words if word.instance == self.me.instance), None)
        if other is None or other.session == self.me.session or other.stopped:
            return
        before, self._other = self._other, other
        goes_on = before and before.session == other.session and before.beat != other.beat
        if goes_on and _order(other) < _order(self.me):
            raise NameTaken(
                f"another bridge is running under the name {other.instance} (process {other.pid} "
                f"on {other.host}): give this one another `instance` in its configuration"
            )

    def next_word(self, **facts: object) -> Word:
        """Our next word to the others."""
        update = {**facts, "beat": self.me.beat + 1, "at_us": self._redis_us}
        self.me = self.me.model_copy(update=update)
        return self.me


def _order(word: Word) -> tuple[int, str]:
    return word.started_us, word.session
