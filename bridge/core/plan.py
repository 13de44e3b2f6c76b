"""The parameters of a core: how long it waits, and where its queues begin (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.contract.identity import EMPTY
from bridge.core.books import SnapshotPlan
from bridge.core.queue import Resume

UNKNOWN_FILLS_US = 24 * 3_600_000_000


@dataclass(frozen=True, slots=True)
class CorePlan:
    """How long a message waits for its predecessor (`hold_us`), or for recovery over REST
    (`recover_us`), and when depth snapshots are written.
    """

    hold_us: int
    recover_us: int
    snapshots: SnapshotPlan


@dataclass(frozen=True, slots=True)
class ResumePoints:
    """Where queues begin, by the checkpoint of an earlier process.

    Records before `position` are settled; for a stream in `apart`, those before its own position.
    `confirmed`: the last ID of each stream that Redis acknowledged. Entries of records before
    `replay_until` may be in Redis already.
    """

    position: int = 0
    replay_until: int = 0
    confirmed: Mapping[str, str] = field(default_factory=dict)
    apart: Mapping[str, int] = field(default_factory=dict)

    def of(self, name: str) -> Resume:
        position = min(self.position, self.apart.get(name, self.position))
        return Resume(position, self.replay_until, self.confirmed.get(name, EMPTY))


FROM_THE_START = ResumePoints()
