"""Reading the archive's files: each entry is returned unchanged, for every type."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from bridge.contract.entry import encode, field_names
from bridge.contract.events import Event
from bridge.contract.identity import EntryId
from bridge.contract.streams import parse_stream
from bridge.core.translate import Rejected, translate
from bridge.errors import ConfigError
from bridge.inspect.archive_stream import ArchiveStream
from bridge.protocol.envelope import Data, parse
from consumers import columns_of, row_of
from consumers.handlers.archive import Files
from tests.support import frames

NOW_US = 1_790_915_531_026_999
ALL = EntryId(0, 0), EntryId(2**62, 0)
FRAMES = {
    name: text
    for name, text in vars(frames).items()
    if name.isupper() and isinstance(text, str) and '"stream":' in text
}


def event_of(frame: str) -> tuple[str, Event]:
    data = parse(frame)
    assert isinstance(data, Data)
    event = translate(parse_stream(data.stream), data, frame, NOW_US)
    assert not isinstance(event, Rejected)
    return data.stream, event


def put(folder: Path, stream: str, after: str, *entries: tuple[str, Event]) -> None:
    rows = [row_of(columns_of(stream), one, event) for one, event in entries]
    assert Files(folder, stream, private=False).put(after, rows)


@pytest.mark.parametrize("name", FRAMES)
def test_an_entry_of_each_type_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    stream, event = event_of(FRAMES[name])
    put(tmp_path, stream, "0-0", ("1790915531025-7", event))
    (entry,) = ArchiveStream(tmp_path, stream).forwards(*ALL)
    assert entry.id == "1790915531025-7"
    assert entry.names == field_names(type(event))
    assert list(entry.values) == encode(event)


def test_fields_that_the_contract_does_not_name_are_read_as_they_were(tmp_path: Path) -> None:
    stream, event = event_of(frames.TRADE.replace('"m":false', '"m":false,"zz":{"a":[1,"2"]}'))
    put(tmp_path, stream, "0-0", ("1-10", event))
    (entry,) = ArchiveStream(tmp_path, stream).forwards(*ALL)
    assert entry.text("extra") == '{"zz":{"a":[1,"2"]}}'
    assert entry.values == encode(event)


def test_a_number_too_large_for_its_column_is_read_as_it_was(tmp_path: Path) -> None:
    stream, event = event_of(frames.TRADE.replace("99419870", str(2**63 + 5)))
    put(tmp_path, stream, "0-0", ("1-10", event))
    (entry,) = ArchiveStream(tmp_path, stream).forwards(*ALL)
    assert entry.values == encode(event)


def test_a_range_takes_only_the_files_and_rows_in_it(tmp_path: Path) -> None:
    stream, event = event_of(frames.TRADE)
    put(tmp_path, stream, "0-0", ("1-10", event), ("1-20", event))
    put(tmp_path, stream, "1-20", ("1-30", event), ("1-40", event))
    put(tmp_path, stream, "1-40", ("1-50", event))
    archive = ArchiveStream(tmp_path, stream)
    found = archive.forwards(EntryId(1, 20), EntryId(1, 40))
    assert [entry.id for entry in found] == ["1-20", "1-30", "1-40"]
    assert [one.id for one in archive.backwards(EntryId(1, 35))] == ["1-30", "1-20", "1-10"]
    assert archive.last_id == EntryId(1, 50)


def test_a_folder_without_the_stream_is_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no archive of trade\.SOL_USDC: give the folder"):
        ArchiveStream(tmp_path, "trade.SOL_USDC")


def test_a_file_that_is_no_parquet_is_reported_by_its_name(tmp_path: Path) -> None:
    day = tmp_path / "stream=trade.SOL_USDC" / "day=2026-09-02"
    day.mkdir(parents=True)
    (day / "after-0-0.parquet").write_text("no")
    with pytest.raises(ConfigError, match=r"after-0-0\.parquet cannot be read"):
        ArchiveStream(tmp_path, "trade.SOL_USDC")


ID = ["1790915531025-7"]
NO_ARCHIVES: dict[str, dict[str, object]] = {
    "no type": {"entry_id": ID},
    "no ID": {"type": ["trade"]},
    "an ID that is none": {"entry_id": ["x"], "type": ["trade"]},
    "no ID in a row": {"entry_id": pa.array([None], pa.string()), "type": ["trade"]},
    "IDs that are numbers": {"entry_id": [5], "type": ["trade"]},
    "an ID of 5,000 digits": {"entry_id": ["9" * 5000], "type": ["trade"]},
    "types that are lists": {"entry_id": ID, "type": [["trade"]]},
    "prices that are lists": {"entry_id": ID, "type": ["trade"], "price": [["1"]]},
    "prices that are objects": {"entry_id": ID, "type": ["trade"], "price": [{"a": 1}]},
    "prices that are bytes": {"entry_id": ID, "type": ["trade"], "price": [b"\xff"]},
}


@pytest.mark.parametrize("name", NO_ARCHIVES)
def test_a_file_of_other_columns_is_refused_with_a_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / "stream=trade.X" / "day=2026-09-02" / "after-0-0.parquet"
    path.parent.mkdir(parents=True)
    table = pa.table(NO_ARCHIVES[name])
    parquet.write_table(table.replace_schema_metadata({"last_entry_id": "1790915531025-7"}), path)
    archive = ArchiveStream(tmp_path, "trade.X")
    with pytest.raises(ConfigError, match=r"after-0-0\.parquet cannot be read as a file"):
        list(archive.forwards(*ALL))
    with pytest.raises(ConfigError, match=r"after-0-0\.parquet cannot be read as a file"):
        list(archive.backwards(ALL[1]))
