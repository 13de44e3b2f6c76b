"""The whole of hearing: connections over the streams, REST for where things stand."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from bridge.contract.streams import Stream
from bridge.feed.asking import Asking, TakesBodies
from bridge.feed.connection import Connection, Hears, Signer
from bridge.feed.rest import Rest
from bridge.feed.supervisor import Supervisor, spread
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Exchange
from bridge.runtime.keys import AccountKey

ASKING_BACKOFF_S = (0.25, 10.0)


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
        self._streams = streams
        self._exchange = exchange
        self._hearing = hearing
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
        groups = spread(list(streams.values()), exchange.connections)
        self._supervisors = [
            self._supervisor(number, group) for number, group in enumerate(groups, 1)
        ]

    async def run(self) -> None:
        """Hear until cancelled."""
        async with self._rest, asyncio.TaskGroup() as tasks:
            for supervisor in self._supervisors:
                tasks.create_task(supervisor.run(), name=supervisor.connection.state.name)
            tasks.create_task(self._asking.run(), name="asking")

    def ask(self, name: str) -> None:
        """Something of this stream is missing that REST may know."""
        if name in self._streams:
            self._asking.want(self._streams[name])

    def status(self) -> list[Mapping[str, Any]]:
        """Each connection, as `python -m bridge status` shows it."""
        return [_connection_status(supervisor.connection) for supervisor in self._supervisors]

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

    def _supervisor(self, number: int, streams: Sequence[Stream]) -> Supervisor:
        exchange = self._exchange
        connection = Connection(
            "private" if streams[0].is_private else f"public-{number}",
            streams,
            exchange,
            self._hearing,
            self._clock_us,
            signer=Signer(self._key.public_key_b64, self._key.sign) if self._key else None,
            on_subscribed=lambda: self._asking.want_account(streams),
        )
        backoff = Backoff(exchange.reconnect_initial_s, exchange.reconnect_max_s, self._chance)
        return Supervisor(connection, backoff)


def _connection_status(connection: Connection) -> Mapping[str, Any]:
    state = connection.state
    return {
        "name": state.name,
        "connected": state.connected,
        "trouble": state.trouble,
        "attempts": state.attempts,
        "frame_us": state.last_frame_us,
        "wanted": len(state.subscriptions.streams),
        "confirmed": len(state.subscriptions.confirmed),
        "refused": state.subscriptions.refused,
    }
