"""The base class of a consumer: a name, its streams, and handlers of events.

    class LastPrice(Consumer):
        name = "last-price"
        streams = ("trade.*",)

        def on_trade(self, delivery: Delivery[Trade]) -> None:
            print(delivery.event.symbol, delivery.event.price)

A handler is called `on_` and the event's class in snake case (`on_trade`, `on_depth_snapshot`,
`on_gap`); `on_event` gets events that have no handler of their own. `on_batch` excludes all other
handlers and gets a list: the entries of one read of one stream, in order. Handlers may be sync or
async; a sync handler blocks its whole worker while it runs. Independent of Redis.
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
    """One entry passed to a handler: the stream's name, the entry ID, the validated event."""

    stream: str
    entry_id: str
    event: E

    @property
    def moment_us(self) -> int:
        """Time of the event, µs since 1970, always a valid date: the exchange's engine time, or the
        time in the entry ID where engine time is missing or impossible (hours off the ID).
        """
        return moment_us(self.entry_id, getattr(self.event, "engine_us", None))


class Missed(NamedTuple):
    """Entries of a stream that were trimmed or deleted before the group could read them.

    `entries` is their number. They were before `before_id`, the last entry settled at detection.
    """

    stream: str
    entries: int
    before_id: str


class StopWorker(Exception):
    """Raise it in a handler to end this worker cleanly.

    The current entry counts as not handled; in ordered mode so does its whole batch.
    """


class Consumer:
    """Subclass this. Options of the command line are passed to `__init__` as strings.

    `shared`: any worker of the group takes any entry, one object serves all streams; an entry may
    be delivered twice after a crash. `ordered`: each stream is handled by one worker at a time, in
    order, by an object of its own; its `state` and the results of `write` are saved together with
    the position, all or nothing, so that a takeover continues exactly there. `joined`: the same for
    several streams with one object and one state, their entries ordered by the exchange's time.
    """

    name: ClassVar[str]
    streams: ClassVar[tuple[str, ...]]
    mode: ClassVar[Mode] = "shared"
    attempts: ClassVar[int] = 10  # per failing entry; the pauses between them grow to 30 s
    # After the last attempt "dead_letter" makes the entry a dead letter; "block" retries it without
    # end. None: dead letter in shared mode; block in ordered mode, since order may matter more.
    on_failure: ClassVar[OnFailure | None] = None
    # An entry that does not fit the contract reaches no handler. It is counted and skipped, or also
    # becomes a dead letter: one of a newer bridge, say, to be sent back to a newer consumer.
    on_undecodable: ClassVar[OnUndecodable] = "skip"
    time_limit_s: ClassVar[float] = 30  # for one call of a handler
    batch_entries: ClassVar[int] = 500  # maximum entries per read of a stream
    batch_wait_s: ClassVar[float] = 0  # pause between reads of a stream: makes batches larger
    concurrency: ClassVar[int] = 1  # concurrent calls of async handlers, per worker
    rate_limit: ClassVar[float | None] = None  # handler calls per second, per worker

    # Joined only: how long an entry waits for earlier ones of other streams, s.
    join_wait_s: ClassVar[float] = 0.25

    resources: Any = None  # the value yielded by `lifespan`
    stream: str  # ordered: the one stream of this object; joined: its key of `joined_by`
    token: int  # ordered, joined: the fencing token, larger with each new owner of the stream
    state: State  # ordered, joined: saved with the position, restored after a takeover

    async def lifespan(self) -> AsyncIterator[Any]:
        """Open what handlers need, yield it once, and close it after the `yield`.

        Entered once per worker, before its first entry, on a separate object; the yielded value is
        the `resources` of every object of this consumer. Exited after the last entry is settled,
        however the worker ends, unless it is killed. Enter and exit may take `time_limit_s` each.
        An exception before the `yield` ends the worker with status 1.
        """
        yield None

    def filter(self, stream: str, fields: Mapping[str, str]) -> bool:
        """Whether to deliver this entry, given its fields as stored in Redis, all text. Called
        before the entry is decoded, which is most of the kit's cost per entry. An entry that is
        filtered out counts as handled."""
        return True

    def key(self, delivery: Delivery[Any]) -> Hashable:
        """With `concurrency`: calls for events of the same key are made one after another, in
        order. None, the default, means one key per stream in ordered mode, and no order in shared
        mode."""
        return None

    def joined_by(self, stream: str) -> str:
        """Joined only: the join key of a stream, made of letters, digits, `_`, `-` and dots. All
        streams with the same key share one object and one state, in one worker at a time."""
        return "all"

    def on_missed(self, missed: Missed) -> Any:
        """Called, sync or async, when entries were removed before they could be read; the kit has
        logged it. An exception from this hook is logged and the call is not retried."""

    def load(self) -> Any:
        """Ordered only: called, sync or async, once `stream` and `state` are set. The next `write`
        must write all results again, since Redis may have been emptied."""

    def write(self, results: Results) -> Any:
        """Ordered only: add the changes of the batch to `results`. Called, sync or async, once
        per batch, before the commit; state, results and position are committed together or not at
        all."""

    def due(self, *, stopping: bool) -> Any:
        """Ordered only: whether (True or False) to call `write` although no entry has arrived.

        Called, sync or async, between reads, and once before a clean end, then with
        `stopping=True`.
        """
        return False

    def made(self) -> str:
        """One short line for people about the results of this consumer; empty for none. Shown as
        `made` in the worker's status, which every user of this Redis can read: no account data
        belongs in it."""
        return ""


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A consumer class with the options for its objects."""

    kind: type[Consumer]
    options: Mapping[str, str] = field(default_factory=dict)
    resources: Any = None  # the value yielded by `lifespan`, passed to each object

    def build(self) -> Consumer:
        """Return a new object. Raises ConfigError for unknown options, and for invalid handlers and
        settings."""
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
            raise  # its message is clear by itself
        except Exception as error:  # code of the consumer, which may raise anything
            what = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{self.kind.name}: its __init__ failed: {what}") from error
        if not isinstance(made, self.kind):
            raise ConfigError(f"{self.kind.name}: its __new__ gives a {type(made).__name__}")
        # The kit reads settings from the class: before an object exists, and for several objects.
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
    """The join key of a stream. Raises ConfigError if it is not valid as a part of a Redis key."""
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
    """Whether an entry becomes a dead letter after its last attempt."""
    return kind.on_failure == "dead_letter" or (kind.on_failure is None and kind.mode == "shared")


def options_of(kind: type[Consumer]) -> dict[str, str]:
    """Names and defaults of the options that a consumer takes."""
    if kind.__init__ is object.__init__:
        return {}
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return {p.name: "" if p.default is p.empty else str(p.default) for p in parameters}
