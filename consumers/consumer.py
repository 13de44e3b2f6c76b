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


class Delivery(NamedTuple, Generic[E]):
    """One entry, handed to a handler: the stream's name, the entry's ID, the validated event."""

    stream: str
    entry_id: str
    event: E


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
    batch_entries: ClassVar[int] = 500  # at most so many entries of a stream at a time
    batch_wait_s: ClassVar[float] = 0  # so long a stream rests between reads: batches grow

    stream: str  # ordered only: the one stream of this object
    state: State  # ordered only: saved with the position, there again after a takeover

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
