"""What a consumer is: a small class with a name, its streams, and handlers of events.

    class LastPrice(Consumer):
        name = "last-price"
        streams = ("trade.*",)

        def on_trade(self, delivery: Delivery[Trade]) -> None:
            print(delivery.event.symbol, delivery.event.price)

A handler is called `on_` and the event's class in snake case (`on_trade`, `on_depth_snapshot`,
`on_gap`); `on_event` gets what has no handler of its own. `on_batch` stands alone and gets a list:
all that was read of one stream at a time, in order. Handlers may be sync or async; a sync one holds
up its whole worker while it runs. Knows neither Redis nor where entries come from.
"""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from bridge.contract.events import Event
from bridge.errors import ConfigError
from bridge.runtime.nearest import did_you_mean
from consumers.results import Results, State

E = TypeVar("E", bound=Event)

Mode = Literal["shared", "ordered"]
Poison = Literal["set aside", "block"]


class Delivery(NamedTuple, Generic[E]):
    """One entry, handed to a handler: the stream's name, the entry's ID, the validated event."""

    stream: str
    entry_id: str
    event: E


class Missed(NamedTuple):
    """So many entries of a stream were trimmed away, or deleted, before the group could read them.

    They lay somewhere before `before_id`, the last entry settled when it was noticed.
    """

    stream: str
    entries: int
    before_id: str


class StopWorker(Exception):
    """Raised by a handler: end this worker cleanly. The entry in hand counts as not handled."""


class Consumer:
    """Subclass this. Options of the command line arrive as string arguments of `__init__`.

    `shared`: any worker of the group takes any entry, one object serves all streams; an entry may
    come twice after a crash. `ordered`: each stream is handled by one worker at a time, in order,
    by an object of its own; its `state` and what `write` gives are saved together with the
    position, all or nothing, so that a takeover goes on exactly.
    """

    name: ClassVar[str]
    streams: ClassVar[tuple[str, ...]]
    mode: ClassVar[Mode] = "shared"
    attempts: ClassVar[int] = 10  # at an entry that fails; the pauses between grow to half a minute
    # Then: into a dead-letter stream, or tried again for ever. Where it is not said, shared mode
    # sets it aside, and ordered mode lets its stream wait.
    poison: ClassVar[Poison | None] = None
    time_limit_s: ClassVar[float] = 30  # for one call of a handler
    batch_entries: ClassVar[int] = 500  # at most so many entries of a stream at a time
    batch_wait_s: ClassVar[float] = 0  # so long a stream rests between reads: batches grow

    stream: str  # ordered only: the one stream of this object
    token: int  # ordered only: the fencing token, larger with each new owner of the stream
    state: State  # ordered only: saved with the position, there again after a takeover

    def on_missed(self, missed: Missed) -> Any:
        """Entries were gone before they could be read. The kit has logged it; do what you must."""

    def load(self) -> None:
        """Ordered only: `stream` and `state` are set; `write` has to give everything anew."""

    def write(self, results: Results) -> None:
        """Ordered only: called once for each batch, before it is committed."""

    def due(self, *, stopping: bool) -> bool:
        """Ordered only: whether `write` is wanted although nothing has come.

        Asked between reads, and once more, `stopping`, before a clean end.
        """
        return False

    def made(self) -> str:
        """One short line for people about what this consumer has made; empty for none."""
        return ""


def sets_aside(kind: type[Consumer]) -> bool:
    """Whether an entry that failed often enough becomes a dead letter."""
    return kind.poison == "set aside" or (kind.poison is None and kind.mode == "shared")


def options_of(kind: type[Consumer]) -> dict[str, str]:
    """Names and defaults of the options a consumer takes."""
    if kind.__init__ is object.__init__:
        return {}
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return {p.name: "" if p.default is p.empty else str(p.default) for p in parameters}


def build(kind: type[Consumer], options: Mapping[str, str]) -> Consumer:
    """A new object of the consumer. Raises ConfigError for options it does not take."""
    known = options_of(kind)
    for name in options:
        if name not in known:
            takes = f"its options are {', '.join(known)}" if known else "it has none"
            raise ConfigError(
                f"{kind.name} has no option {name!r}{did_you_mean(name, known) or f': {takes}'}"
            )
    factory: Any = kind
    try:
        made: Consumer = factory(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind.name}: {error}") from error
    return made
