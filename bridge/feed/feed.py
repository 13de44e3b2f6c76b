"""The whole of hearing: connections over the streams, REST for where things stand."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from bridge.contract.streams import Stream, parse_stream
from bridge.feed.asking import Asking, TakesBodies
from bridge.feed.connection import Hears, Means, Signer
from bridge.feed.lane import Lane, spread
from bridge.feed.pace import Pace
from bridge.feed.rest import Rest
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Exchange
from bridge.runtime.keys import AccountKey

ASKING_BACKOFF_S = (0.25, 10.0)
HANDSHAKES_AT_ONCE = 8
REQUESTS_AT_ONCE = 40


class TakesAll(Hears, TakesBodies, Protocol):
    """Whoever takes in all that is heard."""


class Feed:
    """Hears the streams of one bridge. Use `run`, until cancelled."""

    def __init__(
        self,
        streams: Mapping[str, Stream],
        exchange: Exchange,
        hearing: TakesAll,
        *,
        key: AccountKey | None,
        depth_levels: int,
        clock_us: Callable[[], int],
        chance: random.Random,
    ) -> None:
        self._exchange = exchange
        self._key = key
        self._clock_us = clock_us
        self._chance = chance
        self._rest = self._new_rest()
        self._asking = Asking(
            hearing,
            self._rest,
            depth_levels=depth_levels,
            new_backoff=lambda: Backoff(*ASKING_BACKOFF_S, chance),
        )
        self._means = self._new_means(hearing)
        groups = spread(list(streams.values()), exchange.connections)
        self._lanes = [lane for number, group in enumerate(groups, 1)
                       for lane in self._twins(number, group)]  # fmt: skip

    async def run(self) -> None:
        """Hear until cancelled."""
        async with self._rest, asyncio.TaskGroup() as tasks:
            for lane in self._lanes:
                tasks.create_task(lane.run(), name=lane.name)
            tasks.create_task(self._asking.run(), name="asking")

    def ask(self, name: str) -> None:
        """Something of this stream is missing that REST may know."""
        self._asking.want(parse_stream(name))

    def status(self) -> list[Mapping[str, Any]]:
        """Each connection, as `python -m bridge status` shows it."""
        return [lane.status() for lane in self._lanes]

    def _twins(self, number: int, streams: Sequence[Stream]) -> list[Lane]:
        """The lanes that hear the same streams."""
        name = "private" if streams[0].is_private else f"public-{number}"
        count = self._exchange.connections_per_stream
        twins = [f"{name}-{letter}" for letter in "abc"[:count]] if count > 1 else [name]
        return [Lane(twin, streams, self._means, self._chance) for twin in twins]

    def _new_means(self, hearing: Hears) -> Means:
        exchange, key = self._exchange, self._key
        return Means(
            settings=exchange,
            hearing=hearing,
            clock_us=self._clock_us,
            exchange_us=self._clock_us,
            signer=Signer(key.public_key_b64, key.sign) if key else None,
            handshakes=Pace(exchange.handshakes_per_s, HANDSHAKES_AT_ONCE),
            requests=Pace(exchange.requests_per_s, REQUESTS_AT_ONCE),
            on_answered=self._asking.want_account,
            on_rejected=lambda name, code: None,
        )

    def _new_rest(self) -> Rest:
        return Rest(
            self._exchange.rest_url,
            timeout_s=self._exchange.rest_timeout_s,
            window_ms=self._exchange.signature_window_ms,
            clock_ms=lambda: self._clock_us() // 1000,
            chance=self._chance,
            public_key=self._key.public_key_b64 if self._key else "",
            sign=self._key.sign if self._key else None,
        )
