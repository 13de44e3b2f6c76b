"""The wish that a worker end: set once, awaited by all its parts."""

import asyncio
import contextlib


class Stop:
    """Handed to whatever runs until it is told to stop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask for the end. Only the first call has an effect."""
        self._event.set()

    async def awaited(self) -> None:
        """Return when told to stop."""
        await self._event.wait()

    async def wait(self, seconds: float) -> None:
        """Sleep that long, or until told to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
