"""A recorded case: journals, how they are replayed, and the resulting entries.

A case is one file, `NAME.tar.zst`:

    case.json              the scenario, the settings of the replay, the replays
    journals/a/...         a journal's folder as the bridge left it
    expected/all.jsonl     the entries of the replay `all` in an empty Redis: [stream, ID, fields]
    expected/all~1.jsonl   streams that it made otherwise when entries reached Redis sooner or later

The entries of a stream may depend on how much is waiting for Redis at a time, which does not follow
from the journal: then each recorded variant is correct.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bridge.journal.zstd import zstd

SUFFIX = ".tar.zst"
LEVEL = 19
WINDOW_LOG = 23  # spans a whole case: its entries repeat its frames
PLAIN, PACKED = ".journal", ".journal.zst"  # segments
LEFT_OUT = ("lock",)  # files of a process in a journal's folder

Entry = tuple[str, str, Mapping[str, str]]  # stream, ID, fields
Steps = Sequence[Sequence[str]]  # of one replay, in order: a journal's name and options


@dataclass(frozen=True)
class Case:
    """`settings` is the replay's config.yaml; each of `replays` starts with an empty Redis."""

    name: str
    about: str
    settings: Mapping[str, object]
    replays: Mapping[str, Steps] = field(default_factory=dict)


def find(folders: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """The files of all cases in these folders, or of those whose names begin with one of
    `names`.
    """
    found = [path for folder in folders for path in sorted(folder.glob("*" + SUFFIX))]
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def unpack(packed: Path, folder: Path) -> Case:
    """Unpack a case into an empty folder."""
    plain = zstd.decompress(packed.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        if hasattr(tarfile, "data_filter"):  # from 3.11.4 on
            archive.extractall(folder, filter="data")
        else:
            archive.extractall(folder)
    return read_case(folder)


def pack(folder: Path, packed: Path) -> None:
    """Pack a case into one file; the same folder gives the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for path in _files(folder):
            content = path.read_bytes()
            name = str(path.relative_to(folder))
            if name.endswith(PACKED):  # unpacked segments compress better together
                content = zstd.decompress(content)
                name = name.removesuffix(PACKED) + PLAIN
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    options = {
        zstd.CompressionParameter.compression_level: LEVEL,
        zstd.CompressionParameter.window_log: WINDOW_LOG,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    packed.write_bytes(zstd.compress(plain.getvalue(), options=options))


def _files(folder: Path) -> list[Path]:
    inside = [folder / "case.json", *(folder / "journals").rglob("*"), *folder.glob("expected/*")]
    return sorted(path for path in inside if path.is_file() and path.name not in LEFT_OUT)


def read_case(folder: Path) -> Case:
    return Case(**json.loads((folder / "case.json").read_text()))


def write_case(folder: Path, case: Case) -> None:
    (folder / "case.json").write_text(json.dumps(asdict(case), indent=1))


def read_expected(folder: Path, replay: str) -> list[list[Entry]]:
    """The recorded entries of a replay: of all streams, then the variants of some streams."""
    main = folder / "expected" / f"{replay}.jsonl"
    return [_read(path) for path in (main, *_otherwise(folder, replay))]


def write_expected(folder: Path, replay: str, entries: Sequence[Sequence[Entry]]) -> None:
    """Write the entries and variants for `read_expected`."""
    (folder / "expected").mkdir(exist_ok=True)
    for number, each in enumerate(entries):
        lines = [json.dumps(entry, separators=(",", ":")) + "\n" for entry in each]
        name = f"{replay}~{number}" if number else replay
        (folder / "expected" / f"{name}.jsonl").write_text("".join(lines))


def _otherwise(folder: Path, replay: str) -> list[Path]:
    return sorted((folder / "expected").glob(f"{replay}~*.jsonl"))


def _read(path: Path) -> list[Entry]:
    lines = path.read_text().split("\n")
    return [(stream, entry_id, fields) for stream, entry_id, fields in map(json.loads, lines[:-1])]
