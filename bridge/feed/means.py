"""What all connections of a feed share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.contract.streams import Stream
from bridge.feed.pace import Pace
from bridge.protocol.envelope import Refusal
from bridge.protocol.signing import Sign
from bridge.runtime.config import Exchange


class Hears(Protocol):
    """Whoever frames go to. A connection has a number, given when it is opened."""

    def opened(self, name: str, streams: Sequence[str]) -> int: ...

    def changed(self, connection: int, streams: Sequence[str]) -> None: ...

    def answered(
        self,
        connection: int,
        at_us: int,
        unasked: Sequence[str] = (),
        until_us: int | None = None,
    ) -> None: ...

    def doubted(self, connection: int, stream: str, since_us: int) -> None: ...

    def may_leave(self, connection: int) -> bool: ...

    def leaving(self, connection: int) -> None: ...

    def lost(self, connection: int, cause: str) -> None: ...

    def hear(
        self, frame: str | bytes, received_us: int, connection: int
    ) -> str | Refusal | None: ...


@dataclass(frozen=True, slots=True)
class Signer:
    """What it takes to subscribe to private streams."""

    public_key: str
    sign: Sign


@dataclass(frozen=True, slots=True)
class Means:
    """What all connections of a feed share. `exchange_us`: the exchange's clock, as far as known.

    `on_answered(streams)` runs when the exchange has answered behind these subscriptions,
    `on_rejected(name, code)` when it has refused one.
    """

    settings: Exchange
    hearing: Hears
    clock_us: Callable[[], int]
    exchange_us: Callable[[], int]
    signer: Signer | None
    handshakes: Pace
    requests: Pace
    on_answered: Callable[[Sequence[Stream]], None]
    on_rejected: Callable[[str, int], None]
