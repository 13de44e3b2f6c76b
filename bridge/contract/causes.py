"""The closed list of causes of gaps (pure)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class GapCause(StrEnum):
    """The field `cause` of `gap` and `gap_record` entries; `CAUSES` has the meaning of each."""

    START = "start"
    SKIPPED = "skipped"
    CONNECTION_LOST = "connection lost"
    STALE = "stale"
    UNSUBSCRIBED = "unsubscribed"
    NOT_RUNNING = "bridge was not running"
    OVERFLOW = "overflow"
    NOT_IN_JOURNAL = "not in the journal"
    REDIS_LOST = "redis lost entries"
    RENUMBERED = "renumbered"
    FOREIGN = "foreign"

    @classmethod
    def _missing_(cls, value: object) -> "GapCause | None":
        """Causes as earlier versions wrote them in streams and journals."""
        return {"silent": cls.STALE, "buffer full": cls.OVERFLOW}.get(str(value))


class CauseFacts(NamedTuple):
    """The meaning of a cause, for docs. `sequenced_only`: other streams never have it."""

    means: str
    sequenced_only: bool = False


CAUSES: Mapping[GapCause, CauseFacts] = {
    GapCause.START: CauseFacts(
        "the stream's first entry; nothing is known before it", sequenced_only=True
    ),
    GapCause.SKIPPED: CauseFacts("a number did not come in time", sequenced_only=True),
    GapCause.CONNECTION_LOST: CauseFacts("the connection to the exchange broke"),
    GapCause.STALE: CauseFacts(
        "a stream that should have sent something did not, from its last message until it was "
        "subscribed to again; or a whole connection with a stream that sends each second brought "
        "nothing for more than three seconds"
    ),
    GapCause.UNSUBSCRIBED: CauseFacts(
        "the configuration, or the exchange's listing, left this stream out"
    ),
    GapCause.NOT_RUNNING: CauseFacts(
        "between the last bridge's end and this one's first connection. Without a journal, "
        "sequenced streams have `skipped`"
    ),
    GapCause.OVERFLOW: CauseFacts(
        "Redis was unavailable for so long that the oldest waiting messages were dropped"
    ),
    GapCause.NOT_IN_JOURNAL: CauseFacts(
        "it was received while the journal could not be written; then the bridge was killed "
        "before Redis had it, or Redis lost it again. In a replay: while a recording could not be "
        "written"
    ),
    GapCause.REDIS_LOST: CauseFacts(
        "Redis came back with less than it had acknowledged, and the journal does not reach back "
        "so far"
    ),
    GapCause.RENUMBERED: CauseFacts(
        "the exchange's numbers began anew, lower; the stream continues with the new ones. Of "
        "states: what was dropped as late until that was known"
    ),
    GapCause.FOREIGN: CauseFacts(
        "another program had written to the key; the stream continues after that",
        sequenced_only=True,
    ),
}
