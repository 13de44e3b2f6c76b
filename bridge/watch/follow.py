"""Following streams as they grow: XREAD without a group, from any place, through Redis outages.

Nothing is acknowledged and nobody else is disturbed. A stream that appears later, or a new match of
a pattern, is followed from its first entry. Reading goes on behind the last entry given out.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ResponseError,
)

from bridge.contract import keys
from bridge.contract.identity import EMPTY, EntryId
from bridge.errors import Fatal
from bridge.watch.choose import absence, chosen, is_pattern
from bridge.watch.reader import AWAY, reason

BLOCK_MS = 1000  # well under the socket's time-out
_BATCH = 200
_REGISTRY_EVERY_S = 2.0
_RETRY_S = 1.0
_SEQ_MAX = 2**64 - 1


class Followed(NamedTuple):
    """One entry: the stream's name (without prefix), the entry's ID, its fields."""

    stream: str
    entry_id: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin: `now` only what comes, else every entry after the ID `after`."""

    now: bool
    after: str = EMPTY


def parse_start(text: str) -> Start:
    """Read `now`, `beginning`, an entry ID or its ms part (that entry included), or ValueError."""
    if text in ("now", "beginning"):
        return Start(now=text == "now")
    first = EntryId.parse(text)
    if not (0 <= first.ms < 2**63 and 0 <= first.seq <= _SEQ_MAX):
        raise ValueError(f"{text} is out of range")
    if first.seq:
        return Start(now=False, after=f"{first.ms}-{first.seq - 1}")
    # XREAD gives what is behind an ID: the one before ms-0 is the last of the ms before
    return Start(now=False, after=f"{first.ms - 1}-{_SEQ_MAX}" if first.ms else EMPTY)


class Follower:
    """Follows names and patterns. `tell` gets what a person should know, a line each."""

    def __init__(
        self,
        client: Redis,
        prefix: str,
        wanted: Sequence[str],
        start: Start,
        tell: Callable[[str], None],
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._wanted = wanted
        self._start = start
        self._tell = tell
        self._after: dict[str, str] = {}  # stream → the last ID given out
        self._told: set[str] = set()
        self._known_at_s = float("-inf")
        self._is_first = True

    async def entries(self) -> AsyncIterator[list[Followed]]:
        """Batches of entries in order of their IDs, without an end; a batch may be empty.

        Raises Fatal where Redis refuses us.
        """
        away = False
        while True:
            try:
                await self._find_streams()
                batch = await self._read()
            except (AuthenticationError, NoPermissionError) as error:
                raise Fatal(f"Redis refuses: {reason(error)}") from None
            except BusyLoadingError:
                batch = None
            except ResponseError as error:
                raise Fatal(f"Redis refuses: {reason(error)}") from None
            except AWAY as error:
                if not away:
                    self._tell(f"Redis does not answer ({reason(error)}): trying again")
                away, batch = True, None
            if batch is None:
                await asyncio.sleep(_RETRY_S)
                continue
            if away:
                self._tell("Redis is back")
                away = False
            yield batch

    async def _find_streams(self) -> None:
        if time.monotonic() - self._known_at_s < _REGISTRY_EVERY_S:
            return
        registry: Any = await self._client.hkeys(self._prefix + keys.STREAMS)
        new = [name for name in chosen(self._wanted, registry) if name not in self._after]
        empty = await self._begin(new)
        self._is_first = False
        self._known_at_s = time.monotonic()
        for one in self._wanted:
            if is_pattern(one) or one in empty:
                self._tell_once(absence(one, registry))

    async def _begin(self, names: Sequence[str]) -> set[str]:
        """Find where to begin in each; returns those that do not exist."""
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.exists(self._prefix + name)
            pipeline.xrevrange(self._prefix + name, count=1)
        replies = iter(await pipeline.execute())
        absent = set()
        for name in names:
            exists, newest = next(replies), next(replies)
            # What appears after the first look is new altogether, so it is given from its start.
            jump = self._start.now and self._is_first and newest
            self._after[name] = newest[0][0] if jump else self._start.after
            if not exists:
                absent.add(name)
        return absent

    async def _read(self) -> list[Followed]:
        if not self._after:
            await asyncio.sleep(BLOCK_MS / 1000)
            return []
        streams: Any = {self._prefix + name: after for name, after in self._after.items()}
        replies: Any = await self._client.xread(streams, count=_BATCH, block=BLOCK_MS)
        found: list[Followed] = []
        for key, entries in replies or ():
            name = key[len(self._prefix) :]
            found += [Followed(name, entry_id, fields) for entry_id, fields in entries]
            self._after[name] = entries[-1][0]
        return sorted(found, key=lambda entry: EntryId.parse(entry.entry_id))

    def _tell_once(self, line: str) -> None:
        if line and line not in self._told:
            self._told.add(line)
            self._tell(line)
