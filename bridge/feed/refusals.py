"""What to do about a no (4xx): it is said once, and asked again later and later.

A no may be of what stands before the exchange and be over soon, or of the exchange for a reason
that passes (a clock, rights of a key). Only the exchange's own, again and again, is believed.
"""

import structlog

from bridge.feed.rest import RestRefused
from bridge.runtime.backoff import Backoff

BELIEVED = 8  # with the pauses between them, after some minutes

log = structlog.get_logger(__name__)


class Refusals:
    """Those of one asking. `event` is what the log calls them."""

    def __init__(self, event: str, stream: str, backoff: Backoff) -> None:
        self.count = 0
        self._event = event
        self._stream = stream
        self._backoff = backoff

    def take(self, refused: RestRefused) -> float:
        """Returns after how many seconds to ask again."""
        self.count += 1
        pause_s = self._backoff.next_s()
        if self.count == 1:
            log.warning(
                self._event, stream=self._stream, reason=str(refused), again_s=round(pause_s, 2)
            )
        return pause_s

    def is_hopeless(self, refused: RestRefused) -> bool:
        """Has the exchange itself said so often enough?"""
        return refused.is_final and self.count >= BELIEVED

    def give_up(self, refused: RestRefused) -> None:
        """It is not asked again."""
        log.warning(self._event, stream=self._stream, reason=str(refused), again_s=None)
