"""The subscriptions of one connection: requests, states, candidates of an error frame (pure).

There is no success reply: a stream counts as confirmed with its first message. Error frames have no
id and name no stream. So there is one request for each stream type and window; a refusal is then
about a request that is not confirmed yet. If several are not, each is requested alone.
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
    """The state of a subscription.

    WANTED → PENDING (requested) → CONFIRMED (a message was received). An error frame makes it
    REJECTED, until a message, or a new request without an error. The staleness monitor makes it
    STALE, until a message.
    """

    WANTED = "wanted"  # not requested yet
    PENDING = "pending"  # requested, no message yet: a quiet stream may stay so for long
    CONFIRMED = "confirmed"  # its messages are received
    REJECTED = "rejected"  # the exchange refused it
    STALE = "stale"  # it should send messages, and does not


@dataclass(slots=True)
class Subscription:
    """One stream on one connection. Times of the last request, the last message by the event loop's
    clock, and the last message by our wall clock; None: never.
    """

    stream: Stream
    state: State = State.WANTED
    reason: str = ""  # why it is rejected or stale
    requested_s: float | None = None
    received_s: float | None = None
    last_message_us: int | None = None

    def mark_sent(self, now_s: float) -> None:
        """Note that it was requested."""
        self.requested_s = now_s
        if self.state is State.WANTED:
            self.state = State.PENDING

    def receive(self, now_s: float, received_us: int) -> State | None:
        """Take a message. Returns the state before, if it has changed, else None."""
        self.received_s, self.last_message_us = now_s, received_us
        if self.state is State.CONFIRMED:
            return None
        before = self.state
        self.set_state(State.CONFIRMED)
        return before

    def set_state(self, state: State, reason: str = "") -> None:
        """Set its state and the reason."""
        self.state, self.reason = state, reason


@dataclass(frozen=True, slots=True)
class Request:
    """One message to the exchange. Its streams are of one type, so a refusal concerns them all."""

    streams: tuple[str, ...]
    private: bool
    method: str = "SUBSCRIBE"

    def chunks(self, size: int) -> "list[Request]":
        """The request split into requests of at most `size` streams."""
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
        """The names of all streams of this connection."""
        return list(self.by_name)

    def add(self, streams: Iterable[Stream]) -> None:
        """Add streams, to be requested."""
        for stream in streams:
            self.by_name.setdefault(stream.name, Subscription(stream))

    def remove(self, names: Iterable[str]) -> list[Request]:
        """Remove streams. Returns the requests that unsubscribe from them."""
        removed = [self.by_name.pop(name).stream for name in list(names) if name in self.by_name]
        return grouped(removed, "UNSUBSCRIBE")

    def requests(self) -> list[Request]:
        """Requests for all streams that were not requested yet, public ones first."""
        return grouped(
            [each.stream for each in self.by_name.values() if each.state is State.WANTED]
        )

    def requested(self, names: Iterable[str], now_s: float) -> None:
        """Note that these streams were requested."""
        for name in names:
            subscription = self.by_name.get(name)
            if subscription is not None and subscription.state is not State.CONFIRMED:
                subscription.mark_sent(now_s)

    def received(self, name: str, now_s: float, received_us: int) -> State | None:
        """Take a message of a stream. Returns its state before, if it has changed, else None."""
        subscription = self.by_name.get(name)
        if subscription is None:
            return None
        return subscription.receive(now_s, received_us)

    def candidates(self, code: int) -> list[str]:
        """The streams that an error frame with this code may be about."""
        requested = [
            each.stream
            for each in self.by_name.values()
            if each.state in (State.PENDING, State.STALE)
        ]
        if code == BAD_SIGNATURE:
            return [stream.name for stream in requested if stream.is_private]
        if code == UNKNOWN_WINDOW:
            return [stream.name for stream in requested if stream.window]
        proven = self._proven()
        return [each.name for each in requested if (each.type, each.interval) not in proven]

    def may_mean(self, name: str, code: int) -> bool:
        """Whether an error frame with this code, which may be an unknown one, can be about this
        stream, the only one requested at present.
        """
        stream = self.by_name[name].stream
        if code == BAD_SIGNATURE:
            return stream.is_private
        if code == UNKNOWN_WINDOW:
            return bool(stream.window)
        return code != UNKNOWN_STREAM or (stream.type, stream.interval) not in self._proven()

    def reject(self, names: Iterable[str], code: int) -> None:
        """Mark these streams as refused by the exchange."""
        reason = REFUSALS.get(code, f"the exchange answered with error {code}")
        for name in names:
            if (subscription := self.by_name.get(name)) is not None:
                subscription.set_state(State.REJECTED, reason)

    def accepted(self, name: str) -> None:
        """Note that a rejected stream was requested again without an error."""
        subscription = self.by_name.get(name)
        if subscription is not None and subscription.state is State.REJECTED:
            subscription.set_state(State.PENDING)

    def stale(self, name: str, reason: str) -> None:
        """Mark a stream as stale."""
        if (subscription := self.by_name.get(name)) is not None:
            subscription.set_state(State.STALE, reason)

    def of(self, state: State) -> list[Subscription]:
        """The subscriptions in this state."""
        return [each for each in self.by_name.values() if each.state is state]

    def _proven(self) -> set[tuple[StreamType, str]]:
        """Types and intervals that the exchange has, since a stream of them is confirmed."""
        return {
            (each.stream.type, each.stream.interval)
            for each in self.by_name.values()
            if each.state is State.CONFIRMED
        }


def grouped(streams: Iterable[Stream], method: str = "SUBSCRIBE") -> list[Request]:
    """One request for each type and window, public ones first."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for stream in sorted(streams, key=lambda stream: stream.is_private):
        kind = f"{stream.type}.{stream.window}"
        groups.setdefault((stream.is_private, kind), []).append(stream.name)
    return [Request(tuple(names), private, method) for (private, _), names in groups.items()]
