"""Reads a stream from each source and certifies it: one pass over each, in little memory."""

import sys
from array import array
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from bridge.contract import keys
from bridge.contract.entry import BadEntry
from bridge.contract.identity import EntryId
from bridge.contract.stream_types import Identity
from bridge.contract.streams import Stream
from bridge.inspect.archive_stream import ArchiveStream
from bridge.inspect.certificate import (
    ArchiveCheck,
    Certificate,
    JournalCheck,
    Recovered,
    Source,
)
from bridge.inspect.comparison import Compared, compare
from bridge.inspect.continuity import Continuity, Run, Tally, joined
from bridge.inspect.index import ContentIndex, SequencedIndex
from bridge.inspect.redis_stream import FIRST, RedisStream
from bridge.inspect.stored import Stored, digest
from bridge.journal.inspection import segments_between
from bridge.runtime.keyspace import KeySpace

AROUND_US = 120_000_000
_LAST = EntryId(2**63, 0)
_US_DIGITS = 16  # of a time in µs since 1970, until the year 2286


class Follower:
    """One source's entries: their continuity, and a hash of the messages' content."""

    def __init__(self, stream: Stream, reported: Iterable[Run]) -> None:
        self._continuity = Continuity(stream, reported)
        self._is_sequenced = stream.spec.identity is Identity.SEQUENCED
        self._digests = array("Q")  # one for each message

    @property
    def tally(self) -> Tally:
        return self._continuity.tally

    def add(self, entry: Stored, place: EntryId) -> int | None:
        """Check the next entry. Returns the digest of a message; None for any other entry."""
        try:
            is_message = self._continuity.add(entry, place)
        except BadEntry:
            self.tally.undecodable += 1
            return None
        if not is_message:
            return None
        content = digest(entry.names, entry.values)
        self._digests.append(content)
        return content

    def content(self) -> str:
        """SHA-256 over the digests of all messages, in the order of their numbers, or sorted where
        they have no numbers, since their order differs between sources. Call it once.
        """
        digests = self._digests if self._is_sequenced else array("Q", sorted(self._digests))
        if sys.byteorder == "little":
            digests.byteswap()
        return sha256(digests).hexdigest()


class Audit:
    """An audit of one stream from `first` to before `until` (None: to the end)."""

    def __init__(
        self, client: Any, space: KeySpace, stream: Stream, first: EntryId, until: EntryId | None
    ) -> None:
        self._client = client
        self._space = space
        self._stream = stream
        self._first = first
        self._last = _LAST if until is None else _before(until)
        self._is_sequenced = stream.spec.identity is Identity.SEQUENCED
        self._index: SequencedIndex | ContentIndex = (
            SequencedIndex() if self._is_sequenced else ContentIndex()
        )
        self._first_received = self._last_received = ""  # messages in Redis; µs
        self.certificate = Certificate(stream.name)

    def redis_and_archive(self, where: str, archive: Path | None) -> None:
        """Certify the stream in Redis, and in the archive if given. Raises ConfigError where there
        is no archive, and the Redis client's errors.
        """
        reported = list(self._gap_log())
        stream = RedisStream(self._client, self._space, self._stream.name)
        about = stream.about()
        if about is not None:  # entries added during the audit are not read
            self._last = min(self._last, EntryId.parse(about.last_id))
        in_redis, in_archive = Follower(self._stream, reported), Follower(self._stream, reported)
        kept = None if archive is None else ArchiveStream(archive, self._stream.name)
        first = str(self._first) if self._first > (0, 0) else FIRST
        of_redis = stream.forwards(first, str(self._last)) if about is not None else iter(())
        if kept is None:
            for entry in of_redis:
                self._take(entry, EntryId.parse(entry.id), in_redis)
        else:
            self._both(of_redis, kept, in_redis, in_archive)
        self._index.close()
        self._add("redis", where, in_redis)
        if kept is not None:
            self._add("archive", f"{archive}, up to {kept.last_id}", in_archive)

    def journal(self, path: Path) -> None:
        """Compare with the frames of a journal. Raises ConfigError where there is none."""
        check = JournalCheck(str(path))
        first_us, last_us = int(self._first_received or 0), int(self._last_received or 0)
        segments = segments_between(path, first_us - AROUND_US, last_us + AROUND_US)
        tally = self._redis_tally()
        compared = Compared(
            self._stream,
            joined(gap.run for gap in tally.gaps if gap.run is not None),
            [gap.span_us for gap in tally.gaps if gap.span_us is not None],
            last_us,
        )
        compare(compared, self._index, segments, check)
        self.certificate.add_journal(check)

    def _redis_tally(self) -> Tally:
        return self.certificate.sources[0].tally

    def _add(self, name: str, where: str, follower: Follower) -> None:
        tally = follower.tally
        if tally.overtaken:
            self.certificate.notes.append(
                f"{name}: the stream was trimmed past the place that was read, "
                f"{tally.overtaken} times"
            )
        self.certificate.sources.append(Source(name, where, tally, follower.content()))

    def _take(self, entry: Stored, place: EntryId, follower: Follower) -> int | None:
        content = follower.add(entry, place)
        if content is not None:
            self._index.add(entry, place, content)
            received = entry.text("received_us")
            if len(received) == _US_DIGITS and received.isdecimal():  # so they sort as texts
                self._first_received = self._first_received or received
                self._last_received = max(self._last_received, received)
        return content

    def _both(
        self,
        of_redis: Iterator[Stored],
        archive: ArchiveStream,
        in_redis: Follower,
        in_archive: Follower,
    ) -> None:
        """Read both sources in the order of their IDs, and compare equal IDs."""
        check = ArchiveCheck()
        self.certificate.add_archive(check)
        of_archive = archive.forwards(self._first, self._last)
        one, other = next(of_redis, None), next(of_archive, None)
        redis_begun = archive_begun = False
        while one is not None or other is not None:
            redis_id = EntryId.parse(one.id) if one is not None else _LAST
            archive_id = EntryId.parse(other.id) if other is not None else _LAST
            if one is not None and not one.names:  # trimmed while it was read
                in_redis.add(one, redis_id)
                redis_begun, one = False, next(of_redis, None)
                continue
            content = other_content = None
            if one is not None and redis_id <= archive_id:
                content = self._take(one, redis_id, in_redis)
                redis_begun = True
                if redis_id < archive_id and archive_begun and other is not None:
                    check.only_redis += 1
                    check.different(one.id)
            if other is not None and archive_id <= redis_id:
                other_content = in_archive.add(other, archive_id)
                archive_begun = True
                if archive_id < redis_id and redis_begun and one is not None:
                    check.only_archive += 1
                    check.different(other.id)
            if one is not None and other is not None and redis_id == archive_id:
                is_same = content == other_content and (content is not None or _is_same(one, other))
                _count_compared(check, one.id, is_same=is_same)
            if redis_id <= archive_id:
                one = next(of_redis, None)
            if archive_id <= redis_id:
                other = next(of_archive, None)

    def _gap_log(self) -> Iterator[Run]:
        """The numbers that the gap log names for the stream; sums up its records of the range."""
        found: dict[tuple[str, str, bool], Recovered] = {}
        for record in RedisStream(self._client, self._space, keys.GAPS).forwards():
            if record.text("stream") != self._stream.name:
                continue
            first, last = record.number("from"), record.number("to")
            run = Run(first, last) if first is not None and last is not None else None
            if run is not None:
                yield run
            if self._first <= EntryId.parse(record.id) <= self._last:
                _sum_up(record, run, found)
        self.certificate.recovered.extend(found.values())


def _sum_up(record: Stored, run: Run | None, found: dict[tuple[str, str, bool], Recovered]) -> None:
    kind = record.text("cause"), record.text("how"), record.text("recovered") == "true"
    one = found.setdefault(kind, Recovered(*kind))
    one.gaps += 1
    if run is not None:
        one.numbers += run.last - run.first + 1


def _is_same(one: Stored, other: Stored) -> bool:
    return digest(one.names, one.values) == digest(other.names, other.values)


def _count_compared(check: ArchiveCheck, entry_id: str, *, is_same: bool) -> None:
    if is_same:
        check.compared += 1
    else:
        check.other += 1
        check.different(entry_id)


def _before(entry_id: EntryId) -> EntryId:
    if entry_id.seq:
        return EntryId(entry_id.ms, entry_id.seq - 1)
    return EntryId(max(0, entry_id.ms - 1), 2**64 - 1)
