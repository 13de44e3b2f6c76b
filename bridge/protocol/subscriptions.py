"""The subscriptions of one connection: requests, states, and what an error frame can mean (pure).

There is no success reply: a stream counts as confirmed with its first message. Error frames carry
no id and name no stream, so requests go out in an order that lets a refusal be told apart: one
request for each stream type and window; a refusal then names the requests not yet confirmed. Where
that leaves several, each is asked for alone.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bridge.contract.streams import Stream, StreamType

UNREADABLE, BAD_SIGNATURE, UNKNOWN_STREAM, UNKNOWN_WINDOW = 4002, 4003, 4006, 4008
REFUSALS: Mapping[int, str] = {
    UNREADABLE: "the exchange could not read the request",
    BAD_SIGNATURE: "the signature was not accepted: check the keys and this machine's clock",
    UNKNOWN_STREAM: "the exchange does not know this stream type",
    UNKNOWN_WINDOW: "the exchange does not offer this depth window",
}


class State(StrEnum):
    """How a subscription is.

    WANTED → PENDING (asked for) → CONFIRMED (a message came). An error frame makes it REJECTED,
    which a message, or being asked for again without an error, ends. The staleness monitor makes
    it STALE, which a message ends.
    """

    WANTED = "wanted"  # not asked for yet
    PENDING = "pending"  # asked for, and nothing has come yet: a quiet stream may stay so for long
    CONFIRMED = "confirmed"  # its messages come
    REJECTED = "rejected"  # the exchange said no
    STALE = "stale"  # it should bring messages, and does not


@dataclass(slots=True)
class Subscription:
    """One stream on one connection. `asked_s` and `received_s` are of the event loop's clock,
    `last_message_us` of this side's wall clock; None: never.
    """

    stream: Stream
    state: State = State.WANTED
    reason: str = ""  # why it is rejected or stale
    asked_s: float | None = None
    received_s: float | None = None
    last_message_us: int | None = None

    def mark_sent(self, now_s: float) -> None:
        """A request for it went out."""
        self.asked_s = now_s
        if self.state is State.WANTED:
            self.state = State.PENDING

    def receive(self, now_s: float, received_us: int) -> State | None:
        """A message of it came. Its state before, where that has changed."""
        self.received_s, self.last_message_us = now_s, received_us
        if self.state is State.CONFIRMED:
            return None
        before = self.state
        self.set_state(State.CONFIRMED)
        return before

    def set_state(self, state: State, reason: str = "") -> None:
        """It is in this state now, for that reason."""
        self.state, self.reason = state, reason


@dataclass(frozen=True, slots=True)
class Request:
    """One message to the exchange. What it names shares a type, so a refusal concerns it all."""

    streams: tuple[str, ...]
    private: bool
    method: str = "SUBSCRIBE"

    def chunks(self, size: int) -> "list[Request]":
        """The same in messages of at most `size` names."""
        names = self.streams
        return [
            Request(names[start : start + size], self.private, self.method)
            for start in range(0, len(names), size)
        ]

    def render(self, signature: Sequence[str] | None = None) -> str:
        body: dict[str, object] = {"method": self.method, "params": list(self.streams)}
        if signature is not None:
            body["signature"] = list(signature)
        return json.dumps(body, separators=(",", ":"))


class Subscriptions:
    """The subscriptions of one connection."""

    def __init__(self, streams: Iterable[Stream]) -> None:
        self.by_name = {stream.name: Subscription(stream) for stream in streams}

    def names(self) -> list[str]:
        """All streams that are wanted on this connection."""
        return list(self.by_name)

    def add(self, streams: Iterable[Stream]) -> None:
        """Want these, too."""
        for stream in streams:
            self.by_name.setdefault(stream.name, Subscription(stream))

    def remove(self, names: Iterable[str]) -> list[Request]:
        """Want these no more. Returns the requests that say so."""
        gone = [self.by_name.pop(name).stream for name in list(names) if name in self.by_name]
        return grouped(gone, "UNSUBSCRIBE")

    def requests(self) -> list[Request]:
        """The messages that ask for everything not asked for yet, public first."""
        return grouped(
            [each.stream for each in self.by_name.values() if each.state is State.WANTED]
        )

    def requested(self, names: Iterable[str], now_s: float) -> None:
        """A request for these went out."""
        for name in names:
            subscription = self.by_name.get(name)
            if subscription is not None and subscription.state is not State.CONFIRMED:
                subscription.mark_sent(now_s)

    def received(self, name: str, now_s: float, received_us: int) -> State | None:
        """A message of the stream came. Its state before, where that has changed."""
        subscription = self.by_name.get(name)
        if subscription is None:
            return None
        return subscription.receive(now_s, received_us)

    def candidates(self, code: int) -> list[str]:
        """An error frame came: the streams that it can be about."""
        asked = [
            each.stream
            for each in self.by_name.values()
            if each.state in (State.PENDING, State.STALE)
        ]
        if code == BAD_SIGNATURE:
            return [stream.name for stream in asked if stream.is_private]
        if code == UNKNOWN_WINDOW:
            return [stream.name for stream in asked if stream.window]
        proven = self._proven()
        return [each.name for each in asked if (each.type, each.interval) not in proven]

    def may_mean(self, name: str, code: int) -> bool:
        """Can an error frame be about this stream, the only one that was asked for just now? What
        its code means is not always known.
        """
        stream = self.by_name[name].stream
        if code == BAD_SIGNATURE:
            return stream.is_private
        if code == UNKNOWN_WINDOW:
            return bool(stream.window)
        return code != UNKNOWN_STREAM or (stream.type, stream.interval) not in self._proven()

    def reject(self, names: Iterable[str], code: int) -> None:
        """The exchange said no to these."""
        reason = REFUSALS.get(code, f"the exchange answered with error {code}")
        for name in names:
            if (subscription := self.by_name.get(name)) is not None:
                subscription.set_state(State.REJECTED, reason)

    def accepted(self, name: str) -> None:
        """The exchange was asked for this once more and said nothing against it."""
        subscription = self.by_name.get(name)
        if subscription is not None and subscription.state is State.REJECTED:
            subscription.set_state(State.PENDING)

    def stale(self, name: str, reason: str) -> None:
        """It should have brought messages, and has not."""
        if (subscription := self.by_name.get(name)) is not None:
            subscription.set_state(State.STALE, reason)

    def of(self, state: State) -> list[Subscription]:
        """Those in this state."""
        return [each for each in self.by_name.values() if each.state is state]

    def _proven(self) -> set[tuple[StreamType, str]]:
        """Types and intervals that the exchange has: something of the kind is received."""
        return {
            (each.stream.type, each.stream.interval)
            for each in self.by_name.values()
            if each.state is State.CONFIRMED
        }


def grouped(streams: Iterable[Stream], method: str = "SUBSCRIBE") -> list[Request]:
    """One request for each type and window, public first."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for stream in sorted(streams, key=lambda stream: stream.is_private):
        kind = f"{stream.type}.{stream.window}"
        groups.setdefault((stream.is_private, kind), []).append(stream.name)
    return [Request(tuple(names), private, method) for (private, _), names in groups.items()]
