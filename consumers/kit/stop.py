"""The stop signal of a worker: set once, awaited by all its parts."""

import asyncio
import contextlib


class Stop:
    """A stop signal, passed to all code that runs until a stop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Request the stop. Only the first call has an effect."""
        self._event.set()

    async def awaited(self) -> None:
        """Return when the stop is set."""
        await self._event.wait()

    async def wait(self, seconds: float) -> None:
        """Sleep for `seconds`, or until the stop is set."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
