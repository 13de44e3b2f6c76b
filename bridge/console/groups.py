"""The page Consumers: groups, their lag over time, their workers, and dead letters (pure)."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from bridge.console.kit import FIRST_SHARD, GroupLag, StoredDeadLetter
from bridge.contract.streams import is_private
from bridge.runtime.masking import masked_text
from bridge.runtime.terminal import printable

KEPT = 300  # points of a group's lag, one for each poll
MOST_DEAD_LETTERS = 200  # dead letters shown, the newest


@dataclass(slots=True)
class ConsumersPage:
    """The newest poll of all groups, and the history of their lag."""

    can_change: bool = False
    shows_private: bool = False
    _lags: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    _now: dict[str, Any] = field(default_factory=dict)

    def take(
        self,
        now_us: int,
        groups: Iterable[GroupLag],
        letters: Iterable[StoredDeadLetter],
        unavailable: Mapping[int, str] = MappingProxyType({}),
    ) -> dict[str, Any]:
        """Add a poll; returns the update for clients. `unavailable`: missing shards, and why."""
        shown = [one for group in groups if (one := self._shown(group)) is not None]
        point = {
            "at_us": now_us,
            "groups": {one["group"]: [one["behind_s"], one["lag"]] for one in shown},
        }
        self._lags.append(point)
        self._now = {
            "now_us": now_us,
            "groups": shown,
            "letters": [letter(one) for one in letters],
            "can_change": self.can_change,
            "unavailable": [
                printable(masked_text(why)).removesuffix(".") for why in unavailable.values()
            ],
            "knows_workers": FIRST_SHARD not in unavailable,
        }
        return self._now | {"points": [point]}

    def whole(self) -> dict[str, Any]:
        """The whole page, for a new client."""
        return self._now | {"points": list(self._lags)}

    def shows(self, group: str, stream: str) -> bool:
        """Whether this stream of the group is on the page."""
        groups = self._now.get("groups", ())
        streams = [each for one in groups if one["group"] == group for each in one["streams"]]
        return any(each["stream"] == stream for each in streams)

    def _shown(self, group: GroupLag) -> dict[str, Any] | None:
        """A group as shown; None where it reads only the account's streams, which are hidden."""
        streams = [s for s in group.streams if self.shows_private or not is_private(s.stream)]
        if group.streams and not streams:
            return None
        whole = GroupLag(printable(group.name), group.mode, streams, group.workers).as_dict()
        return whole | {
            "workers": [
                asdict(worker) | {"name": printable(worker.name), "is_alive": worker.is_alive}
                for worker in group.workers
            ]
        }


def with_dead_letters(
    groups: Iterable[GroupLag], *, shows_private: bool
) -> Mapping[str, Sequence[str]]:
    """Maps each group to its streams with dead letters."""
    found = {
        group.name: [
            one.stream
            for one in group.streams
            if one.dead and (shows_private or not is_private(one.stream))
        ]
        for group in groups
    }
    return {name: streams for name, streams in found.items() if streams}


def letter(one: StoredDeadLetter) -> dict[str, Any]:
    """A dead letter as shown; missing fields are empty."""
    names = ("error", "at", "worker", "attempts")
    shown = {name: printable(one.fields.get(name, "")) for name in names}
    return shown | {
        "group": one.group,
        "stream": one.stream,
        "letter": one.letter_id,
        "entry": printable(one.fields.get("entry_id", "")),
        "since_us": int(one.letter_id.partition("-")[0]) * 1000,
    }
