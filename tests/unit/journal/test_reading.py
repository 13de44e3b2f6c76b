"""Reading a journal that somebody else may be writing, and that may be damaged."""

import json
from pathlib import Path
from typing import NoReturn

import pytest

from bridge.commands.journal import moment_us, span_us
from bridge.errors import ConfigError
from bridge.journal import reading, segments
from bridge.journal.checkpoint import Checkpoint, write_checkpoint
from bridge.journal.reading import Damage, export_line, records, summarise
from bridge.journal.record import Kind, Record
from bridge.journal.segments import Segment, list_segments, pack

OPENED = '10 O 1 {"name":"public-1","streams":["trade.SOL_USDC"]}\n'


def frame(moment_us: int, number: int = 1) -> str:
    return f'{moment_us} F {number} {{"data":{{}},"stream":"trade.SOL_USDC"}}\n'


def journal(folder: Path, *parts: str) -> list[Segment]:
    """One segment for each part."""
    start = 0
    for part in parts:
        (folder / f"{start:020d}.journal").write_text(part)
        start += len(part)
    return list_segments(folder)


def exported(body: bytes) -> object:
    return json.loads(export_line(Record(20, Kind.FRAME, 1, body)).decode())["body"]


def test_a_body_that_is_json_stands_as_it_was_written() -> None:
    line = export_line(Record(20, Kind.FRAME, 3, b'{"p":1.10,"q":1e400}'))

    assert line == b'{"received_us":20,"kind":"frame","connection":3,"body":{"p":1.10,"q":1e400}}'


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b"NaN", b'{"p":Infinity}', b"hello", b"\xff\xfe", b"1" * 5000],
)
def test_a_body_that_is_none_is_a_text(body: bytes) -> None:
    assert exported(body) == body.decode(errors="backslashreplace")


def test_half_a_surrogate_pair_stays_spelled_out() -> None:
    body = b'{"s":"\\ud800"}'

    assert body in export_line(Record(20, Kind.FRAME, 1, body))
    assert exported('"\ud800"'.encode(errors="surrogatepass")) == '"\\xed\\xa0\\x80"'


def test_a_frame_of_several_lines_is_one_line() -> None:
    line = export_line(Record(20, Kind.BINARY, 1, b'{"a":\r\n"b\\n"}'))

    assert line.splitlines() == [line]
    assert exported(b'{"a":\r\n"b\\n"}') == {"a": "b\n"}
    assert exported(b"") is None


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2026-11-23T04:00:00", 1795406400_000000),
        ("2026-11-23T04:00:00.000001Z", 1795406400_000001),
        ("2026-11-22T23:00:00-05:00", 1795406400_000000),
        ("2026-11-23", 1795392000_000000),
        ("1795406400", 1795406400_000000),
        ("1795406400123", 1795406400_123000),
        ("1795406400123456", 1795406400_123456),
    ],
)
def test_times_that_are_understood(text: str, us: int) -> None:
    assert moment_us(text) == us


@pytest.mark.parametrize("text", ["²", "٣" * 10, "17954064", "yesterday", "1e9", "-1"])
def test_times_that_are_not(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a time: write 2026-11-23T04:00:00"):
        moment_us(text)


def test_a_span_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ConfigError, match="--to 2026-11-23 is not after --from 2026-11-24"):
        span_us("2026-11-24", "2026-11-23")
    assert span_us(None, None) == (0, None)


def test_a_clock_that_was_set_for_a_moment_does_not_end_the_reading(tmp_path: Path) -> None:
    stepped = '99 C 1 {"streams":["trade.BTC_USDC"]}\n' + frame(99)
    journal(tmp_path, OPENED + frame(20) + stepped + frame(21) + frame(40) + "41 P 0 \n")

    read = [(record.received_us, record.kind.name) for record in records(tmp_path, 0, 40)]

    assert read == [(10, "OPENED"), (20, "FRAME"), (99, "CHANGED"), (21, "FRAME")]


def test_frames_before_the_beginning_are_left_out_and_connections_are_not(tmp_path: Path) -> None:
    journal(tmp_path, OPENED + frame(20), frame(21) + "22 L 1 {}\n")

    read = [(record.received_us, record.kind.name) for record in records(tmp_path, 21)]

    assert read == [(10, "OPENED"), (21, "FRAME"), (22, "LOST")]


def test_damaged_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    journal(tmp_path, OPENED + "rubbish\n" + frame(20), "\n" + frame(21))
    damage = Damage()

    assert len(list(records(tmp_path, damage=damage))) == 3
    assert damage.lines == 2


def test_a_record_that_makes_no_sense_is_damage(tmp_path: Path) -> None:
    journal(tmp_path, OPENED + "11 L 1 5\n" + f"12 S 0 {'[' * 100_000}\n" + frame(20))

    assert [sentence.rpartition(": ")[2] for sentence in summarise(tmp_path).damage] == [
        f"no sense in the record at {len(OPENED)}",
        f"no sense in the record at {len(OPENED) + 9}",
    ]


@pytest.mark.parametrize("happens", ["packed", "removed"])
def test_a_bridge_that_tidies_meanwhile_is_no_damage(
    happens: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, *_ = journal(tmp_path, OPENED + frame(20), frame(21), frame(22))

    def listed(folder: Path) -> list[Segment]:
        found = list_segments(folder)
        if happens == "packed":
            pack(oldest)
        else:
            oldest.path.unlink()
        return found

    monkeypatch.setattr(reading, "list_segments", listed)
    summary = summarise(tmp_path)

    assert summary.damage == []
    assert summary.segments == (3 if happens == "packed" else 2)
    assert summary.records["frame"] == summary.segments


def test_a_segment_that_goes_just_before_it_is_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, *_ = journal(tmp_path, OPENED + frame(20), frame(21))

    def measured(segment: Segment) -> int | None:
        size = disk_bytes(segment)
        oldest.path.unlink(missing_ok=True)
        return size

    disk_bytes = reading._disk_bytes
    monkeypatch.setattr(reading, "_disk_bytes", measured)

    assert summarise(tmp_path).damage == []


def test_a_segment_missing_in_between_is_damage(tmp_path: Path) -> None:
    _, middle, _ = journal(tmp_path, OPENED, frame(21), frame(22))
    middle.path.unlink()

    (sentence,) = summarise(tmp_path).damage

    assert "the one before it ends at" in sentence


def test_a_checkpoint_beyond_the_end_is_damage_unless_the_end_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (segment,) = journal(tmp_path, OPENED + frame(20))
    end = segment.path.stat().st_size
    write_checkpoint(tmp_path, Checkpoint(end + 5, "redis"))
    assert "beyond the journal's end" in summarise(tmp_path).damage[0]

    def flushed(_: float) -> None:
        segment.path.write_text(OPENED + frame(20) + frame(21))

    monkeypatch.setattr(reading.time, "sleep", flushed)
    assert summarise(tmp_path).damage == []


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_only_another_user_may_read_is_told(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(tmp_path, OPENED)

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    if what == "folder":
        monkeypatch.setattr(reading.os, "listdir", refuse)
    else:
        monkeypatch.setattr(segments, "open_plain", refuse)
    for look in (summarise, lambda path: list(records(path))):
        with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\): only the"):
            look(tmp_path)


def test_a_file_that_only_looks_like_a_segment_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "²².journal").write_text(frame(20))
    journal(tmp_path, OPENED)

    assert summarise(tmp_path).records == {"opened": 1}
    assert summarise(tmp_path / "²².journal").records == {"frame": 1}
