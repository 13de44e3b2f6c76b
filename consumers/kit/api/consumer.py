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
import re
from collections.abc import AsyncIterator, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from bridge.contract.events import Event
from bridge.contract.identity import moment_us
from bridge.errors import BridgeError, ConfigError
from bridge.runtime.nearest import did_you_mean
from consumers.kit.api.results import Results, State
from consumers.kit.api.routes import check_calls, check_concurrency

E = TypeVar("E", bound=Event)

Mode = Literal["shared", "ordered", "joined"]
OnFailure = Literal["dead_letter", "block"]
OnUndecodable = Literal["skip", "dead_letter"]


class Delivery(NamedTuple, Generic[E]):
    """One entry, handed to a handler: the stream's name, the entry's ID, the validated event."""

    stream: str
    entry_id: str
    event: E

    @property
    def moment_us(self) -> int:
        """When it happened, µs since 1970, always of the calendar: by the exchange's engine, and by
        the entry's ID where the engine says nothing, or what cannot be (hours beside the ID).
        """
        return moment_us(self.entry_id, getattr(self.event, "engine_us", None))


class Missed(NamedTuple):
    """Entries of a stream that were trimmed away, or deleted, before the group could read them.

    `entries` is how many. They lay before `before_id`, the last entry settled when it was noticed.
    """

    stream: str
    entries: int
    before_id: str


class StopWorker(Exception):
    """Raise it in a handler to end this worker cleanly.

    The entry in hand counts as not handled, in ordered mode its whole batch.
    """


class Consumer:
    """Subclass this. Options of the command line arrive as string arguments of `__init__`.

    `shared`: any worker of the group takes any entry, one object serves all streams; an entry may
    come twice after a crash. `ordered`: each stream is handled by one worker at a time, in order,
    by an object of its own; its `state` and what `write` gives are saved together with the
    position, all or nothing, so that a takeover goes on exactly. `joined`: the same for several
    streams with one object and one state, their entries in the order of the exchange's time.
    """

    name: ClassVar[str]
    streams: ClassVar[tuple[str, ...]]
    mode: ClassVar[Mode] = "shared"
    attempts: ClassVar[int] = 10  # at an entry that fails; the pauses between grow to half a minute
    # After the last attempt the entry becomes a dead letter, or is tried again for ever. None: a
    # dead letter in shared mode; in ordered mode its stream waits, since order may matter more.
    on_failure: ClassVar[OnFailure | None] = None
    # An entry that is not of the contract reaches no handler. It is counted and skipped, or becomes
    # a dead letter as well: one of a newer bridge, say, to be sent back to a newer consumer.
    on_undecodable: ClassVar[OnUndecodable] = "skip"
    time_limit_s: ClassVar[float] = 30  # for one call of a handler
    batch_entries: ClassVar[int] = 500  # at most so many entries of a stream at a time
    batch_wait_s: ClassVar[float] = 0  # so long a stream rests between reads: batches grow
    concurrency: ClassVar[int] = 1  # calls of async handlers at once, in each worker
    rate_limit: ClassVar[float | None] = None  # calls of handlers a second, in each worker

    # Joined only: how long an entry waits for earlier ones of other streams, s.
    join_wait_s: ClassVar[float] = 0.25

    resources: Any = None  # what `lifespan` has yielded
    stream: str  # ordered: the one stream of this object; joined: its key of `joined_by`
    token: int  # not in shared mode: the fencing token, larger with each new owner of the stream
    state: State  # not in shared mode: saved with the position, there again after a takeover

    async def lifespan(self) -> AsyncIterator[Any]:
        """Open what handlers need, yield it once, and close it behind the `yield`.

        Entered once for each worker, before its first entry, on an object of its own; every object
        of this consumer then has as `resources` what was yielded. Left after the last entry is
        settled, however the worker ends, unless it is killed. Takes `time_limit_s` at most each
        way. What it raises before the `yield` ends the worker with status 1.
        """
        yield None

    def filter(self, stream: str, fields: Mapping[str, str]) -> bool:
        """Whether this entry is wanted, by its fields as they are in Redis, all text. Called before
        an entry is decoded, which costs most of the kit's time for one. An entry that is not wanted
        counts as handled."""
        return True

    def key(self, delivery: Delivery[Any]) -> Hashable:
        """With `concurrency`: calls for events of the same key come one after another, in their
        order. None, the default, stands in ordered mode for the stream; in shared mode there is no
        order then."""
        return None

    def joined_by(self, stream: str) -> str:
        """Joined only: which streams belong together, as a key of letters, digits, `_`, `-` and
        dots. All streams with one key have one object and one state, in one worker at a time."""
        return "all"

    def on_missed(self, missed: Missed) -> Any:
        """Called, sync or async, when entries were gone before they could be read; the kit has
        logged it. What this raises is logged and not tried again."""

    def load(self) -> Any:
        """Ordered only: called, sync or async, once `stream` and `state` are set. The next `write`
        has to give everything anew, for Redis may have been emptied."""

    def write(self, results: Results) -> Any:
        """Ordered only: put what the batch has changed into `results`. Called, sync or async, once
        for each batch, before it is committed; state and results then count together with it, or
        not at all."""

    def due(self, *, stopping: bool) -> Any:
        """Ordered only: whether (True or False) `write` is to be called although nothing has come.

        Called, sync or async, between reads, and once more before a clean end, then with
        `stopping=True`.
        """
        return False

    def made(self) -> str:
        """One short line for people about what this consumer has made; empty for none. Shown as
        `made` in the worker's status, which all who use this Redis may read: nothing of an account
        belongs into it."""
        return ""


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A consumer class with the options its objects are made with."""

    kind: type[Consumer]
    options: Mapping[str, str] = field(default_factory=dict)
    resources: Any = None  # for the objects that are made

    def build(self) -> Consumer:
        """A new object. Raises ConfigError for options that the consumer does not take, and for
        handlers and settings with which it could not work."""
        known = options_of(self.kind)
        for name in self.options:
            if name not in known:
                takes = f"its options are {', '.join(known)}" if known else "it has none"
                hint = did_you_mean(name, known) or f": {takes}"
                raise ConfigError(f"{self.kind.name} has no option {name!r}{hint}")
        factory: Any = self.kind
        try:
            made: Consumer = factory(**self.options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.kind.name}: {error}") from error
        except BridgeError:
            raise  # its own sentence
        except Exception as error:  # code of the consumer, which may raise anything
            what = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{self.kind.name}: its __init__ failed: {what}") from error
        if not isinstance(made, self.kind):
            raise ConfigError(f"{self.kind.name}: its __new__ gives a {type(made).__name__}")
        # The kit reads settings before there is an object, and of several objects of a consumer.
        for setting in SETTINGS & vars(made).keys():
            raise ConfigError(
                f"{self.kind.name}: {setting} is set in __init__: it is a setting of the class"
            )
        check_calls(made)
        check_concurrency(made, self.kind.concurrency)
        made.resources = self.resources
        return made


_JOIN_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SETTINGS = frozenset(
    name for name, annotation in Consumer.__annotations__.items() if "ClassVar" in str(annotation)
)
"""The names of the class attributes that a consumer may set."""


def joined_by(consumer: Consumer, stream: str) -> str:
    """The key of a stream in joined mode. Raises ConfigError where it can be no part of a key."""
    try:
        key: object = consumer.joined_by(stream)
    except Exception as error:  # code of the consumer, which may raise anything
        where = f"{type(consumer).__name__}.joined_by({stream!r})"
        raise ConfigError(f"{where} failed: {type(error).__name__}: {error}") from error
    if not isinstance(key, str) or not _JOIN_KEY.fullmatch(key):
        raise ConfigError(
            f"{type(consumer).__name__}.joined_by({stream!r}) gives {key!r}: return up to 64 "
            "letters, digits, dots, _ and -"
        )
    return key


def makes_dead_letters(kind: type[Consumer]) -> bool:
    """Whether an entry becomes a dead letter when it has failed often enough."""
    return kind.on_failure == "dead_letter" or (kind.on_failure is None and kind.mode == "shared")


def options_of(kind: type[Consumer]) -> dict[str, str]:
    """Names and defaults of the options that a consumer takes."""
    if kind.__init__ is object.__init__:
        return {}
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return {p.name: "" if p.default is p.empty else str(p.default) for p in parameters}
