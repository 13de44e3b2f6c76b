"""The journal's files: append-only segments of lines, named by their start offset.

    00000000000000000000.journal        closed ones become …journal.zst

An offset counts bytes from the journal's first record, over all segments, as if none had been
compressed or removed; between a segment and a start beyond its end, records are missing. Files and
folder are private (0600, 0700). An incomplete last line after a crash is cut off when the journal
is opened. Compressed segments have zstd's own checksum. `codec` defines the lines.
"""

import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO
from weakref import finalize

from bridge.errors import Fatal
from bridge.journal.checkpoint import MAX_OFFSET
from bridge.journal.owner import Owner, claim
from bridge.journal.zstd import zstd

PLAIN, PACKED = ".journal", ".journal.zst"
IN_PART = ".new"  # behind PACKED, while the segment is being compressed
LOCK = "lock"
READ_BYTES = 1024 * 1024
MAX_LINE = 64 * 1024 * 1024  # bytes; the longest real lines have a REST body of 16 MB
PACKED_PIECE_BYTES = 16 * 1024  # decompressed at once
PACKING: Mapping[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.checksum_flag: 1,
}


class WriteFailed(OSError):
    """A write failed, for example on a full disk: `lines` were not written."""

    def __init__(self, error: OSError, lines: list[bytes]) -> None:
        super().__init__(error.errno, error.strerror or str(error))
        self.lines = lines


class DamagedSegment(Exception):
    """A compressed segment cannot be read any further."""


class JournalInUse(Fatal):
    """Another process writes to this folder."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the journal; `start` is the offset of its first byte."""

    start: int
    path: Path

    @property
    def is_packed(self) -> bool:
        return self.path.name.endswith(PACKED)


def list_segments(folder: Path) -> list[Segment]:
    """The segments in a folder, oldest first. The packed copy of a plain one is left out."""
    by_start: dict[int, Segment] = {}
    for path in sorted(folder.glob("*.journal*")):
        digits, _, ending = path.name.partition(".")
        is_named_so = digits.isascii() and digits.isdecimal() and f".{ending}" in (PLAIN, PACKED)
        if not is_named_so or int(digits) > MAX_OFFSET:
            continue  # no journal is so long: no checkpoint could have an offset in it
        if path.is_file():  # opening a named pipe would block
            by_start.setdefault(int(digits), Segment(int(digits), path))
    return [by_start[start] for start in sorted(by_start)]


class SegmentReader:
    """Reads the bytes of one segment from an offset on.

    It continues when the segment is compressed or removed meanwhile. Raises OSError if the segment
    cannot be opened, DamagedSegment if it is compressed and damaged.
    """

    def __init__(self, segment: Segment, offset: int) -> None:
        self.segment, self._file, is_packed = _open_raw(segment)
        finalize(self, self._file.close)  # a reader may be dropped without `close`
        self.place = segment.start  # the offset of what is read next
        self._inflate = zstd.ZstdDecompressor() if is_packed else None
        self._ahead = BytesIO()  # decompressed, and not all returned yet
        try:
            self._skip_to(offset)
        except DamagedSegment:
            self._file.close()
            raise

    def read(self, count: int) -> bytes:
        """At most so many bytes (`count` is above 0); empty at the present end."""
        if self._inflate is None:
            data = self._file.read(count)
        else:
            data = self._ahead.read(count)
            while not data and self._decompress():
                data = self._ahead.read(count)
        self.place += len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _skip_to(self, offset: int) -> None:
        if self._inflate is None:
            self._file.seek(offset - self.place)
            self.place = offset
        while self.place < offset and self.read(offset - self.place):
            pass

    def _decompress(self) -> bool:
        """Decompress another piece; False at the end. Raises DamagedSegment, also if the file ends
        early.
        """
        assert self._inflate is not None
        if self._inflate.eof:
            return False
        piece = b""
        if self._inflate.needs_input and not (piece := self._file.read(PACKED_PIECE_BYTES)):
            raise DamagedSegment(f"{self.segment.path.name} ends early")
        try:
            self._ahead = BytesIO(self._inflate.decompress(piece, READ_BYTES))
        except zstd.ZstdError as error:
            raise DamagedSegment(f"{self.segment.path.name}: {error}") from error
        return True


def _open_raw(segment: Segment) -> tuple[Segment, BinaryIO, bool]:
    """The segment's file, or the compressed one that has replaced it meanwhile."""
    try:
        return segment, segment.path.open("rb"), segment.is_packed
    except FileNotFoundError:
        packed = Segment(segment.start, segment.path.with_name(segment.path.name + ".zst"))
        return packed, packed.path.open("rb"), True


class SegmentWriter:
    """Appends lines; only one process at a time.

    `set_aside`: the folder to which another owner's journal was moved, if there was one. With
    `syncs`, `sync` is called from time to time, and ended segments stay open until then.

    `Log` uses `write`, `begin` and `restore`; older callers use `append`, `flush`, `roll`, `head`.
    """

    def __init__(
        self,
        folder: Path,
        segment_bytes: int,
        owner: Owner | None = None,
        *,
        syncs: bool = True,
    ) -> None:
        self.folder = folder
        self.head: Callable[[], bytes] | None = None  # the first line of each new segment
        self._segment_bytes = segment_bytes
        self._buffer: list[bytes] = []
        self._syncs = syncs
        self._ended: list[int] = []  # segments that are full, and not synced yet
        self._has_new_name = True
        self._owner = owner
        self._is_torn = False  # a part of a failed write is still in the file
        self._lock = self._take_folder()
        try:
            self.set_aside = claim(folder, owner) if owner is not None else None
            self._start, self.end = self._heal()
            self._file = self._open(self._start)
        except OSError:
            os.close(self._lock)
            raise
        self.written = self.end  # the offset up to which the operating system has the lines

    def append(self, line: bytes) -> int:
        """Add a line (with its line feed). Returns its offset. `flush` writes it."""
        offset = self.end
        self._buffer.append(line)
        self.end += len(line)
        return offset

    def flush(self) -> None:
        """Write all added lines. Raises WriteFailed with the lines that could not be written: they
        are no longer kept here.
        """
        if not self._buffer:
            return
        lines, self._buffer = self._buffer, []
        try:
            self.write(lines)
        except OSError as error:
            raise WriteFailed(error, lines) from error
        if self.is_full:
            with suppress(OSError):  # the lines are written; a later `roll` raises the reason
                self.roll()

    def write(self, lines: Sequence[bytes]) -> None:
        """Write whole lines. Raises OSError: then none of them is written; a part that is in the
        file is cut off before the next write.
        """
        data = b"".join(lines)
        try:
            self._cut_torn()
            done = 0
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError:
            self._take_back()
            raise
        self.written += len(data)
        self.end = self.written

    def begin(self, start: int) -> None:
        """Begin a new segment at this offset, the end or beyond it (then records in between are
        missing). An empty present segment is removed. Raises OSError.
        """
        if start == self._start:
            return
        self._cut_torn()
        following, before = self._open(start), self._start
        is_empty = self.written == before
        if is_empty:
            with suppress(OSError):
                self._path(before).unlink()
        if self._syncs and not is_empty:
            self._ended.append(self._file)
        else:
            os.close(self._file)
        self._file, self._start = following, start
        self.written = self.end = start
        self._has_new_name, self._is_torn = True, False

    @property
    def start(self) -> int:
        """The start of the segment that is being written."""
        return self._start

    @property
    def is_full(self) -> bool:
        """Whether the segment has reached its size."""
        return self.written - self._start >= self._segment_bytes

    def sync(self) -> None:
        """Make written lines survive a power loss. Raises OSError. May run in another thread during
        `write`.
        """
        ended, self._ended = self._ended, []
        has_new_name, self._has_new_name = self._has_new_name, False
        failed: OSError | None = None
        for file in ended:
            try:
                os.fsync(file)
            except OSError as error:
                failed = error
            finally:
                os.close(file)
        os.fsync(self._file)
        if failed is not None:
            raise failed
        if has_new_name:
            sync_folder(self.folder)

    def close(self) -> None:
        """Close the files and release the folder's lock."""
        for file in (*self._ended, self._file, self._lock):
            os.close(file)

    def is_in_place(self) -> bool:
        """Whether the file is in the folder, with all that was written."""
        if not _is_same(self._path(self._start), self._file):
            return False
        return os.fstat(self._file).st_size >= self.written - self._start

    def restore(self) -> None:
        """If the files were removed, continue in a new one. Raises OSError."""
        if self.is_in_place():
            return
        if not _is_same(self.folder / LOCK, self._lock):
            lock = self._take_folder()
            os.close(self._lock)
            self._lock = lock
        if self._owner is not None:
            claim(self.folder, self._owner)
        file = self._open(self.written)
        for old in (*self._ended, self._file):
            os.close(old)
        self._ended, self._file = [], file
        self._start = self.end = self.written
        self._has_new_name, self._is_torn = True, False

    def roll(self) -> None:
        """Begin a new segment. Everything must be flushed. Raises OSError."""
        if self.end == self._start:
            return
        following = self._open(self.end)
        if self._syncs:
            self._ended.append(self._file)
        else:
            os.close(self._file)
        self._file, self._start = following, self.end
        self._has_new_name = True
        if self.head is not None:
            self.append(self.head())

    def _take_back(self) -> None:
        """After a failed write: cut the file at the end of the last whole write."""
        self.end = self.written
        self._is_torn = True
        with suppress(OSError):  # it is tried again before the next write
            self._cut_torn()

    def _cut_torn(self) -> None:
        if self._is_torn:
            os.ftruncate(self._file, self.written - self._start)
            self._is_torn = False

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:020d}{PLAIN}"

    def _open(self, start: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK  # the last for pipes
        return os.open(self._path(start), flags, 0o600)

    def _take_folder(self) -> int:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise JournalInUse(
                f"the journal in {self.folder} is written by another bridge: give this one "
                "another journal.dir"
            ) from None
        return lock

    def _heal(self) -> tuple[int, int]:
        """The newest segment's start and the journal's end; an incomplete last line is cut off, and
        segments that a killed process had compressed in part are removed.
        """
        for part in self.folder.glob(f"*{PACKED}{IN_PART}"):
            part.unlink(missing_ok=True)
        segments = list_segments(self.folder)
        if not segments:
            return 0, 0
        newest = segments[-1]
        if newest.is_packed:
            end = newest.start + _readable_bytes(newest)
            return end, end
        length = newest.path.stat().st_size
        whole = _whole_lines(newest.path, length)
        if whole < length:
            os.truncate(newest.path, whole)
        return newest.start, newest.start + whole


def _is_same(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except OSError:
        return False


def _readable_bytes(packed: Segment) -> int:
    """How many bytes of a compressed segment can be read: all, or those before damage."""
    with closing(SegmentReader(packed, packed.start)) as reader:
        with suppress(DamagedSegment):
            while reader.read(READ_BYTES):
                pass
        return reader.place - packed.start


def _whole_lines(path: Path, length: int) -> int:
    """How many bytes of the file are whole lines."""
    with path.open("rb") as file:
        place = length
        while place > 0:
            step = min(READ_BYTES, place)
            file.seek(place - step)
            index = file.read(step).rfind(b"\n")
            if index >= 0:
                return place - step + index + 1
            place -= step
    return 0


def pack(segment: Segment) -> Segment:
    """Compress a closed segment, then remove the plain file. Raises OSError."""
    packed = segment.path.with_name(segment.path.name + ".zst")
    aside = packed.with_name(packed.name + IN_PART)
    try:
        _compress(segment, aside)
    except OSError:
        # On a full disk it would take the last room of the journal, which then never recovers.
        aside.unlink(missing_ok=True)
        raise
    aside.replace(packed)
    sync_folder(packed.parent)
    segment.path.unlink()
    return Segment(segment.start, packed)


def _compress(segment: Segment, aside: Path) -> None:
    """Write the compressed content of a segment to this file."""
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with segment.path.open("rb") as plain, os.fdopen(descriptor, "wb") as target:
        with zstd.ZstdFile(target, "wb", options=PACKING) as packing:
            copyfileobj(plain, packing, READ_BYTES)
        target.flush()
        os.fsync(target.fileno())
    written = segment.path.stat()
    os.utime(aside, ns=(written.st_atime_ns, written.st_mtime_ns))  # keep its age


def sync_folder(folder: Path) -> None:
    """Make new file names in a folder survive a power loss. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_bytes(folder: Path) -> int:
    """The size of the segments on the disk."""
    total = 0
    for segment in list_segments(folder):
        try:
            total += segment.path.stat().st_size
        except FileNotFoundError:
            continue
    return total
