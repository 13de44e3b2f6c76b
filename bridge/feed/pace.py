"""How often something may be said to the exchange, over all connections together.

A few at once, then at an even pace, in order of asking. However many connections break at the same
time, the exchange is not hammered.
"""

import asyncio


class Pace:
    """`await turn()` before each; `hold` when the exchange said that it is too often.

    Times are the loop's, in seconds.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval_s = 1 / per_second
        self._burst = burst
        self._due_s = float("-inf")  # when the next one would be due at an even pace
        self._held_until_s = float("-inf")

    async def turn(self) -> None:
        """Wait for this one's turn."""
        loop = asyncio.get_running_loop()
        due_s = self.take(loop.time())
        await asyncio.sleep(due_s - loop.time())
        if self._held_until_s > loop.time():  # held while this one waited
            await asyncio.sleep(self._held_until_s - loop.time())

    def take(self, now_s: float) -> float:
        """When the one that asks now may go."""
        begin_s = max(now_s, self._held_until_s)
        due_s = max(self._due_s, begin_s - (self._burst - 1) * self._interval_s)
        self._due_s = due_s + self._interval_s
        return max(begin_s, due_s)

    def hold(self, until_s: float) -> None:
        """Nobody goes before then, and after that at an even pace."""
        self._held_until_s = max(self._held_until_s, until_s)
        self._due_s = max(self._due_s, self._held_until_s)
