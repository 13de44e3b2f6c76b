"""One stream in Redis, read page by page and never changed."""

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
_LOWEST, _HIGHEST = "0-0", f"{2**64 - 1}-{2**64 - 1}"  # `(` beyond these is an error in Redis

_tuple = tuple.__new__  # faster than `Stored(…)`, which is a Python function, for each entry


class About(NamedTuple):
    """A stream's key. `added`: entries ever added; None: this server does not count them."""

    length: int
    added: int | None
    last_id: str
    oldest: str | None
    newest: str | None


@contextlib.contextmanager
def reading_redis(config: Config) -> Iterator["redis.Redis"]:
    """A client of the configured Redis, whose errors become a Fatal with one sentence."""
    url = resolve_url(config)
    try:
        with connect_blocking(url, name="bridge:inspect") as client:
            client.set_response_callback("XRANGE", _unchanged)
            client.set_response_callback("XREVRANGE", _unchanged)
            yield client
    except (redis.RedisError, OSError, TimeoutError) as error:
        raise unreadable(error, url) from None
    except UnicodeDecodeError:
        raise Fatal(
            f"Redis at {masked_url(url)} holds bytes that are no text: another program has written "
            "to a key that was to be read"
        ) from None


def _unchanged(reply: Any, **_: Any) -> Any:
    return reply


class RedisStream:
    """A stream, by its name without the prefix."""

    def __init__(self, client: "redis.Redis", space: KeySpace, name: str) -> None:
        self._client: Any = client
        self._names: tuple[str, ...] = ()
        self.name = name
        self.key = space.key(name)

    def about(self) -> About | None:
        """The stream's key, or None where it does not exist."""
        try:
            info: Any = self._client.xinfo_stream(self.key)
        except redis.ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        oldest, newest = info["first-entry"], info["last-entry"]
        return About(
            info["length"],
            info.get("entries-added"),
            info["last-generated-id"],
            oldest[0] if oldest else None,
            newest[0] if newest else None,
        )

    def entry(self, entry_id: str) -> Stored | None:
        """The entry with this ID, or None."""
        return next(iter(self._page("XRANGE", entry_id, entry_id, 1)), None)

    def next_after(self, known: str) -> Stored | None:
        """The first entry after an ID, or None."""
        if known == _HIGHEST:
            return None
        return next(iter(self._page("XRANGE", f"({known}", LAST, 1)), None)

    def last_before(self, known: str) -> Stored | None:
        """The last entry before an ID, or None."""
        if known == _LOWEST:
            return None
        return next(iter(self._page("XREVRANGE", f"({known}", FIRST, 1)), None)

    def forwards(self, first: str = FIRST, last: str = LAST) -> Iterator[Stored]:
        """The entries of a range, oldest first; `(` before a bound excludes it. Where trimming has
        passed the reading position, an entry without fields is yielded.
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
                names = of_this  # shared by entries, so that its hash is cached
            found.append(_tuple(Stored, (entry_id, names, flat[1::2])))
        self._names = names
        return found
