"""One stream as Redis keeps it, read page by page and never changed."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import redis

from bridge.contract.identity import EntryId
from bridge.errors import Fatal
from bridge.inspect.stored import Stored
from bridge.runtime.config import Config
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.masking import masked_url
from bridge.runtime.redis_client import connect_blocking, resolve_url
from bridge.runtime.redis_trouble import unreadable

PAGE_ENTRIES = 1000
FIRST, LAST = "-", "+"
_LOWEST, _HIGHEST = "0-0", f"{2**64 - 1}-{2**64 - 1}"  # nothing is beyond: Redis calls it an error

_tuple = tuple.__new__  # `Stored(…)` is a function in Python around it, once for each entry


class About(NamedTuple):
    """A stream's key: how many entries it has, and ever had (None: this server does not count)."""

    length: int
    added: int | None
    last_id: str
    oldest: str | None
    newest: str | None


@contextlib.contextmanager
def reading_redis(config: Config) -> Iterator["redis.Redis"]:
    """A client of the configured Redis. What it raises becomes one sentence (Fatal)."""
    url = resolve_url(config)
    try:
        with connect_blocking(url, name="bridge:inspect") as client:
            client.set_response_callback("XRANGE", _as_it_is)
            client.set_response_callback("XREVRANGE", _as_it_is)
            yield client
    except (redis.RedisError, OSError, TimeoutError) as error:
        raise unreadable(error, url) from None
    except UnicodeDecodeError:
        raise Fatal(
            f"Redis at {masked_url(url)} holds bytes that are no text: another program has written "
            "to a key that was to be read"
        ) from None


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


class RedisStream:
    """A stream by its name, without the prefix."""

    def __init__(self, client: "redis.Redis", space: KeySpace, name: str) -> None:
        self._client: Any = client
        self._names: tuple[str, ...] = ()
        self.name = name
        self.key = space.key(name)

    def about(self) -> About | None:
        """None where there is no such stream."""
        try:
            told: Any = self._client.xinfo_stream(self.key)
        except redis.ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        oldest, newest = told["first-entry"], told["last-entry"]
        return About(
            told["length"],
            told.get("entries-added"),
            told["last-generated-id"],
            oldest[0] if oldest else None,
            newest[0] if newest else None,
        )

    def entry(self, wanted: str) -> Stored | None:
        """The entry of this ID."""
        return next(iter(self._page("XRANGE", wanted, wanted, 1)), None)

    def next_after(self, known: str) -> Stored | None:
        """The first entry behind an ID."""
        if known == _HIGHEST:
            return None
        return next(iter(self._page("XRANGE", f"({known}", LAST, 1)), None)

    def last_before(self, known: str) -> Stored | None:
        """The last entry before an ID."""
        if known == _LOWEST:
            return None
        return next(iter(self._page("XREVRANGE", f"({known}", FIRST, 1)), None)

    def forwards(self, first: str = FIRST, last: str = LAST) -> Iterator[Stored]:
        """The entries of a range, oldest first; a bound may be left out by `(` before it. Where the
        stream is trimmed past the place that is read, an entry without fields stands there.
        """
        while page := self._page("XRANGE", first, last, PAGE_ENTRIES):
            yield from page
            if len(page) < PAGE_ENTRIES:
                return
            reached, first = page[-1].id, f"({page[-1].id}"
            oldest: Any = self._client.execute_command("XRANGE", self.key, FIRST, LAST, "COUNT", 1)
            if oldest and EntryId.parse(oldest[0][0]) > EntryId.parse(reached):
                yield Stored(reached, (), ())

    def backwards(self, last: str = LAST, first: str = FIRST) -> Iterator[Stored]:
        """The entries of a range, newest first."""
        while page := self._page("XREVRANGE", last, first, PAGE_ENTRIES):
            yield from page
            if len(page) < PAGE_ENTRIES:
                return
            last = f"({page[-1].id}"

    def _page(self, command: str, start: str, end: str, count: int) -> Sequence[Stored]:
        reply: Any = self._client.execute_command(command, self.key, start, end, "COUNT", count)
        names, found = self._names, []
        for entry_id, flat in reply:
            if (of_this := tuple(flat[0::2])) != names:
                names = of_this  # entries share it: its texts are hashed once
            found.append(_tuple(Stored, (entry_id, names, flat[1::2])))
        self._names = names
        return found
