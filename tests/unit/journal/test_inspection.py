"""Inspection of a journal that may be damaged, or written by a bridge meanwhile."""

import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

from bridge.contract.causes import GapCause
from bridge.core.records import (
    Frame,
    Lost,
    Missing,
    Opened,
    Record,
    SegmentState,
    Started,
    Subscribed,
)
from bridge.errors import ConfigError
from bridge.journal import codec, inspection, segments
from bridge.journal.checkpoint import Checkpoint, write_checkpoint
from bridge.journal.inspection import (
    Damage,
    Line,
    export_line,
    exported,
    lines_of,
    records,
    segments_of,
    summarise,
)
from bridge.journal.segments import Segment, list_segments, pack
from tests.support.journal_subject import (
    NOW_US,
    ORDERS,
    TRADES,
    LogSubject,
    fill_disk,
    frame,
    short_forms,
)

OPENED = Opened(NOW_US, 1, "public-1", [TRADES])


def journal(folder: Path, *parts: list[Record]) -> list[Segment]:
    """Write each part to a segment; return the segments."""
    start = 0
    for part in parts:
        content = b"".join(map(codec.encode, part))
        (folder / f"{start:020d}.journal").write_bytes(content)
        start += len(content)
    return list_segments(folder)


def old(number: int) -> bytes:
    received_us, connection, body = frame(number)
    return b"%d F %d %b\n" % (received_us, connection, body)


def line(body: bytes, kind: str = "frame") -> bytes:
    return export_line(Line(0, 1, 20, kind, 3, body))


def exported_body(body: bytes) -> object:
    return json.loads(line(body).decode())["body"]


# ---- export --------------------------------------------------------------------------------------


def test_a_json_body_is_exported_unchanged() -> None:
    assert line(b'{"p":1.10,"q":1e400}') == (
        b'{"received_us":20,"kind":"frame","connection":3,"body":{"p":1.10,"q":1e400}}'
    )


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b"NaN", b'{"p":Infinity}', b"hello", b"\xff\xfe", b"1" * 5000],
)
def test_a_body_that_is_not_json_is_exported_as_text(body: bytes) -> None:
    assert exported_body(body) == body.decode(errors="backslashreplace")


def test_half_a_surrogate_pair_stays_spelled_out() -> None:
    body = b'{"s":"\\ud800"}'

    assert body in line(body)
    assert exported_body('"\ud800"'.encode(errors="surrogatepass")) == '"\\xed\\xa0\\x80"'


def test_a_frame_of_several_lines_is_one_line() -> None:
    assert line(b'{"a":\r\n"b\\n"}').splitlines() == [line(b'{"a":\r\n"b\\n"}')]
    assert exported_body(b'{"a":\r\n"b\\n"}') == {"a": "b\n"}
    assert exported_body(b"") is None


def test_export_has_every_line_and_counts_those_that_cannot_be_read(tmp_path: Path) -> None:
    (segment,) = journal(tmp_path, [OPENED, Frame(NOW_US, 1, b"a\nb"), frame(1), Started(NOW_US)])
    content = segment.path.read_bytes().replace(b'"n":1', b'"n":2')
    segment.path.write_bytes(content)
    damage = Damage()

    facts = [json.loads(each) for each in exported(tmp_path, damage=damage)]

    assert [(each["kind"], each["body"]) for each in facts] == [
        ("opened", {"name": "public-1", "streams": [TRADES]}),
        ("binary", "a\nb"),
        ("started", None),
    ]
    assert damage.lines == 1


def test_export_selects_frames_by_time(tmp_path: Path) -> None:
    journal(tmp_path, [OPENED, frame(1), frame(2), frame(3)])

    kinds = [json.loads(each)["kind"] for each in exported(tmp_path, NOW_US + 2, NOW_US + 3)]

    assert kinds == ["opened", "frame"]


# ---- records, for a replay -----------------------------------------------------------------------


def test_a_clock_that_was_set_for_a_moment_does_not_end_the_reading(tmp_path: Path) -> None:
    stepped: list[Record] = [Subscribed(NOW_US + 99, 1, [TRADES]), frame(99)]
    journal(tmp_path, [OPENED, frame(20), *stepped, frame(21), frame(40), Started(NOW_US + 41)])

    read = short_forms(list(records(tmp_path, 0, NOW_US + 40)))

    assert read == ["Opened", 20, "Subscribed", 21]


def test_frames_before_the_beginning_are_left_out_and_connections_are_not(tmp_path: Path) -> None:
    lost = Lost(NOW_US + 22, 1, GapCause.CONNECTION_LOST)
    journal(tmp_path, [OPENED, frame(20)], [frame(21), lost])

    assert short_forms(list(records(tmp_path, NOW_US + 21))) == ["Opened", 21, "Lost"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_replay_is_given_unreadable_records_as_missing(packed: bool, tmp_path: Path) -> None:
    first, second, third, _ = journal(
        tmp_path, [OPENED, frame(1)], [frame(2), frame(3)], [frame(4)], [frame(5)]
    )
    second.path.write_bytes(second.path.read_bytes().replace(b'"n":2', b'"n":7'))
    third.path.unlink()
    if packed:
        pack(first), pack(second)
    damage = Damage()

    found = list(records(tmp_path, damage=damage))

    assert short_forms(found) == ["Opened", 1, "-*", 3, "-*", 5]
    assert damage.lines == 1


@pytest.mark.parametrize("kept", [0, 20])
def test_a_replay_is_given_damage_at_the_end_as_missing(kept: int, tmp_path: Path) -> None:
    _, last = journal(tmp_path, [OPENED, frame(1)], [frame(2), frame(3)])
    path = pack(last).path
    path.write_bytes(path.read_bytes()[:kept] if kept else b"\0" * 99)
    damage = Damage()

    found = list(records(tmp_path, damage=damage))

    assert short_forms(found) == ["Opened", 1]
    assert damage.lines == 1


def test_a_recording_with_a_loss_replays_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=2_000)
    subject.written(1)
    fill_disk(monkeypatch)
    subject.written(60)
    monkeypatch.undo()
    subject.recover()
    subject.log.close()

    found = short_forms(list(records(tmp_path)))

    assert found[:2] == [0, f"-{TRADES}"]
    assert found[-1] == 60


def test_one_file_is_read_alone(tmp_path: Path) -> None:
    _, second = journal(tmp_path, [OPENED, frame(1)], [SegmentState(NOW_US, {}, {}, ()), frame(2)])

    assert short_forms(list(records(second.path))) == ["SegmentState", 2]


# ---- summary and damage --------------------------------------------------------------------------


def test_a_whole_journal_is_counted_and_has_no_damage(tmp_path: Path) -> None:
    journal(tmp_path, [OPENED, frame(1)], [SegmentState(NOW_US, {}, {}, ()), frame(2), frame(3)])

    summary = summarise(tmp_path)

    assert summary.damage == summary.unwritten == []
    assert summary.records == {"opened": 1, "frame": 3, "state": 1}
    assert summary.streams == {TRADES: 3}
    assert (summary.first_us, summary.last_us) == (NOW_US, NOW_US + 3)
    assert summary.bytes == sum(each.path.stat().st_size for each in list_segments(tmp_path))


def test_a_journal_of_an_earlier_version_is_whole(tmp_path: Path) -> None:
    (tmp_path / f"{0:020d}.journal").write_bytes(old(1) + old(2))

    assert summarise(tmp_path).damage == []
    assert summarise(tmp_path).records == {"frame": 2}


def test_a_line_without_a_checksum_behind_one_with_is_damage(tmp_path: Path) -> None:
    content = old(1) + codec.encode(frame(2)) + old(3)
    (tmp_path / f"{0:020d}.journal").write_bytes(content)

    assert summarise(tmp_path).damage == [
        f"{0:020d}.journal: no record at offset {len(content) - len(old(3))}"
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_every_flipped_byte_is_found(packed: bool, tmp_path: Path) -> None:
    first, _ = journal(tmp_path, [OPENED, *map(frame, range(5))], [frame(9)])
    path = pack(first).path if packed else first.path
    whole = path.read_bytes()

    right = summarise(tmp_path).records

    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x01
        path.write_bytes(changed)
        summary = summarise(tmp_path)
        # a flip in zstd's header may only increase the memory that it requests
        assert summary.damage or (packed and place < 9 and summary.records == right), place


def test_three_damaged_segments_are_three_sentences(tmp_path: Path) -> None:
    parts = [[frame(10 * part + each) for each in range(4)] for part in range(5)]
    for segment in journal(tmp_path, *parts)[:3]:
        content = bytearray(pack(segment).path.read_bytes())
        content[len(content) // 2] ^= 0x10
        segment.path.with_name(segment.path.name + ".zst").write_bytes(content)

    damage = summarise(tmp_path).damage

    assert {sentence.partition(":")[0] for sentence in damage if "no record" in sentence} == {
        segment.path.name for segment in list_segments(tmp_path)[:3]
    }


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_compressed_segment_that_ends_early_is_damage_though_it_is_the_last(
    share: float, tmp_path: Path
) -> None:
    (segment,) = journal(tmp_path, [frame(number) for number in range(50)])
    path = pack(segment).path
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    assert summarise(tmp_path).damage


def test_zeros_are_damage(tmp_path: Path) -> None:
    first, _ = journal(tmp_path, [frame(1), frame(2), frame(3)], [frame(4)])
    content = first.path.read_bytes()
    first.path.write_bytes(content[:60] + bytes(50) + content[110:])

    assert len(summarise(tmp_path).damage) == 1


def test_a_nonsensical_record_is_damage(tmp_path: Path) -> None:
    first = codec.encode(OPENED)
    senseless = b"1790915531026999 L 1 5\n"
    (tmp_path / f"{0:020d}.journal").write_bytes(senseless + first)

    assert summarise(tmp_path).damage == [f"{0:020d}.journal: no record at offset 0"]


def test_a_segment_missing_in_between_is_damage(tmp_path: Path) -> None:
    _, middle, _ = journal(tmp_path, [OPENED], [frame(1)], [frame(2)])
    middle.path.unlink()

    (sentence,) = summarise(tmp_path).damage

    assert "the one before it ends at" in sentence


def test_unwritten_records_are_reported_and_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=2_000)
    subject.written(1)
    fill_disk(monkeypatch)
    subject.written(60, ORDERS)
    monkeypatch.undo()
    subject.recover()
    subject.log.close()

    summary = summarise(tmp_path)

    assert summary.damage == []
    (sentence,) = summary.unwritten
    assert sentence.endswith(ORDERS)


def test_unwritten_records_of_perhaps_every_stream_are_reported_as_such(tmp_path: Path) -> None:
    journal(
        tmp_path,
        [
            Missing(NOW_US + 1, GapCause.NOT_IN_JOURNAL, None, NOW_US),
            Missing(NOW_US + 1, GapCause.NOT_IN_JOURNAL, None, 0),
            Missing(NOW_US + 1, GapCause.NOT_IN_JOURNAL, {}),
        ],
    )

    unwritten = summarise(tmp_path).unwritten

    assert unwritten[0] == "2026-10-02T04:32:11.026+00:00 – 2026-10-02T04:32:11.027+00:00: " \
        "perhaps every stream"  # fmt: skip
    assert unwritten[1].startswith("the beginning – ")


def test_a_checkpoint_beyond_the_end_is_damage_unless_the_end_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (segment,) = journal(tmp_path, [OPENED, frame(1)])
    end = segment.path.stat().st_size
    write_checkpoint(tmp_path, Checkpoint(end, "redis", end=end + 5))
    assert "beyond the journal's end" in summarise(tmp_path).damage[0]

    def flushed(_: float) -> None:
        segment.path.write_bytes(segment.path.read_bytes() + codec.encode(frame(2)))

    monkeypatch.setattr(inspection.time, "sleep", flushed)
    assert summarise(tmp_path).damage == []
    assert summarise(tmp_path).settled == end


def test_a_checkpoint_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    journal(tmp_path, [OPENED])
    (tmp_path / "checkpoint.json").write_text("{")

    assert summarise(tmp_path).damage == ["checkpoint.json cannot be read, or makes no sense"]


# ---- while a bridge writes it --------------------------------------------------------------------


@pytest.mark.parametrize("happens", ["packed", "removed"])
def test_a_segment_compressed_or_pruned_meanwhile_is_no_damage(
    happens: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, *_ = journal(tmp_path, [OPENED, frame(1)], [frame(2)], [frame(3)])

    def listed(folder: Path) -> list[Segment]:
        found = list_segments(folder)
        if happens == "packed":
            pack(oldest)
        else:
            oldest.path.unlink()
        return found

    monkeypatch.setattr(inspection, "list_segments", listed)
    summary = summarise(tmp_path)

    assert summary.damage == []
    assert summary.segments == (3 if happens == "packed" else 2)
    assert summary.records["frame"] == summary.segments


def test_a_segment_removed_just_before_it_is_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, *_ = journal(tmp_path, [OPENED, frame(1)], [frame(2)])

    def measured(segment: Segment) -> int | None:
        size = disk_bytes(segment)
        oldest.path.unlink(missing_ok=True)
        return size

    disk_bytes = inspection._disk_bytes
    monkeypatch.setattr(inspection, "_disk_bytes", measured)

    assert summarise(tmp_path).damage == []


def test_a_last_line_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    (segment,) = journal(tmp_path, [OPENED])
    segment.path.write_bytes(segment.path.read_bytes() + codec.encode(frame(1))[:30])

    assert summarise(tmp_path).damage == []
    assert short_forms(list(records(tmp_path))) == ["Opened"]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_journal_that_only_another_user_may_read_is_reported(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(tmp_path, [OPENED])

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    if what == "folder":
        monkeypatch.setattr(os, "listdir", refuse)
    else:
        monkeypatch.setattr(segments, "_open_raw", refuse)
    for read in (summarise, lambda path: list(records(path)), lambda path: list(exported(path))):
        with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\): only the"):
            read(tmp_path)


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no journal"):
        segments_of(tmp_path)


def test_a_file_with_the_name_of_a_segment_only_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "²².journal").write_bytes(codec.encode(frame(20)))
    journal(tmp_path, [OPENED])

    assert summarise(tmp_path).records == {"opened": 1}
    assert summarise(tmp_path / "²².journal").records == {"frame": 1}


@pytest.mark.parametrize("packed", [False, True])
def test_an_overlong_line_is_damage_and_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(inspection, "MAX_LINE", 1_500_000)
    path = tmp_path / f"{0:020d}.journal"
    path.write_bytes(b"no record\n" + b"\0" * 5_000_000 + b"\nno record\n")
    segment = pack(Segment(0, path)) if packed else Segment(0, path)

    assert [line.position for line in lines_of(segment)] == [0, 10]


def test_summary_counts_frames_by_stream_in_any_spelling_and_those_without_one(
    tmp_path: Path,
) -> None:
    bodies = (
        b'{"data":{},"stream":"trade.SOL_USDC"}',
        b'{"stream": "trade.SOL_USDC", "data": {}}',
        b'{"id":null,"error":{"code":4006,"message":"Invalid stream"}}',
        b"[]",
        b'{"stream": 7}',
        b"no JSON",
    )
    lines = [codec.encode(Frame(1, 1, body)) for body in bodies]
    (tmp_path / f"{0:020}.journal").write_bytes(b"".join(lines))

    assert summarise(tmp_path).streams == {"trade.SOL_USDC": 2, "(no stream)": 4}
