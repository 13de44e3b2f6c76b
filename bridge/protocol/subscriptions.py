"""What to say to subscribe, and what an error frame can mean for it (pure).

There is no success reply: a stream counts as confirmed with its first message. Error frames carry
no id and name no stream, so requests go out in an order that lets a refusal be told apart: one
request for each stream type and window; a refusal then names the requests not yet confirmed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.contract.streams import Stream

REFUSALS: Mapping[int, str] = {
    4002: "the exchange could not read the request",
    4003: "the signature was not accepted: check the keys and this machine's clock",
    4006: "the exchange does not know this stream type",
    4008: "the exchange does not offer this depth window",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One SUBSCRIBE message: its streams share a type, so a refusal of it concerns them all."""

    streams: tuple[str, ...]
    private: bool

    def chunks(self, size: int) -> "list[Request]":
        """The same in messages of at most `size` names."""
        names = self.streams
        return [
            Request(names[start : start + size], self.private)
            for start in range(0, len(names), size)
        ]

    def render(self, signature: Sequence[str] | None = None) -> str:
        body: dict[str, object] = {"method": "SUBSCRIBE", "params": list(self.streams)}
        if signature is not None:
            body["signature"] = list(signature)
        return json.dumps(body, separators=(",", ":"))


@dataclass(slots=True)
class Subscriptions:
    """The subscriptions of one connection: wanted, then confirmed or refused."""

    streams: Sequence[Stream]
    confirmed: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def requests(self) -> list[Request]:
        """The messages that subscribe to everything wanted, public first."""
        groups: dict[tuple[bool, str], list[str]] = {}
        for stream in sorted(self.streams, key=lambda stream: stream.is_private):
            kind = f"{stream.type}.{stream.window}"
            groups.setdefault((stream.is_private, kind), []).append(stream.name)
        return [Request(tuple(names), private) for (private, _), names in groups.items()]

    def heard(self, name: str) -> bool:
        """A message of the stream came: True the first time."""
        if name in self.confirmed:
            return False
        self.confirmed.add(name)
        self.refused.pop(name, None)
        return True

    def refuse(self, code: int) -> Sequence[str]:
        """An error frame came: the streams that it can be about."""
        candidates = self._candidates(code)
        reason = REFUSALS.get(code, f"the exchange answered with error {code}")
        self.refused.update(dict.fromkeys(candidates, reason))
        return candidates

    def pending(self) -> Iterable[str]:
        """Wanted, and neither confirmed nor refused yet (a quiet stream may stay so for long)."""
        return [
            stream.name
            for stream in self.streams
            if stream.name not in self.confirmed and stream.name not in self.refused
        ]

    def _candidates(self, code: int) -> Sequence[str]:
        open_streams = [stream for stream in self.streams if stream.name not in self.confirmed]
        if code == 4003:
            return [stream.name for stream in open_streams if stream.is_private]
        if code == 4008:
            return [stream.name for stream in open_streams if stream.window]
        proven = {stream.type for stream in self.streams if stream.name in self.confirmed}
        return [stream.name for stream in open_streams if stream.type not in proven]
