"""Encoding of records as lines, and decoding of present and earlier versions' lines."""

from collections.abc import Callable
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.causes import GapCause
from bridge.core.records import (
    Answered,
    BodyKind,
    CaughtUp,
    Closing,
    Frame,
    GapLogged,
    Lost,
    Missing,
    Opened,
    Rebased,
    Record,
    RestBody,
    SegmentState,
    Started,
    Subscribed,
    Suspected,
    Watermarks,
)
from bridge.journal.codec import (
    decode,
    decode_payload,
    encode,
    encode_frame,
    frame_of,
    letter_of,
    number_of,
    verified,
)

AT_US = 1_790_915_531_026_999
NAMES = ("trade.SOL_USDC", "account.orderUpdate")

times = st.integers(1, 10**16 - 1)
numbers = st.integers(0, 10**6)
names = st.text("abcXYZ_.019é", min_size=1).filter(lambda name: name != "*")
streams = st.lists(names, max_size=4).map(tuple)
causes = st.sampled_from(GapCause)
spans = st.dictionaries(names, st.tuples(times, times), max_size=4)
coverage = st.dictionaries(names, st.integers() | st.none() | st.text(), max_size=3)
frames = st.builds(Frame, times, numbers, st.binary())
rest_bodies = st.builds(
    RestBody, times, names, st.sampled_from(BodyKind),
    st.binary().map(lambda body: body.replace(b"\n", b" ")),
)  # fmt: skip
records: st.SearchStrategy[Record] = st.one_of(
    frames,
    rest_bodies,
    st.builds(Opened, times, numbers, st.text(), streams),
    st.builds(Subscribed, times, numbers, streams),
    st.builds(Answered, times, numbers, times, streams, st.none() | times, st.just(False)),
    st.builds(Answered, times, numbers, times, streams, st.none(), st.just(True)),
    st.builds(Suspected, times, numbers, names, st.none() | times),
    st.builds(Lost, times, numbers, causes),
    st.builds(Watermarks, times, st.dictionaries(names, times, max_size=4)),
    st.builds(Started, times),
    st.builds(Missing, times, causes, spans, st.just(0), end=st.just(0)),
    st.builds(Missing, times, causes, st.none(), times, end=st.just(0)),
    st.builds(GapLogged, times, st.dictionaries(names, names, max_size=3)),
    st.builds(
        SegmentState, times,
        st.dictionaries(numbers, st.dictionaries(names, times, max_size=3), max_size=3),
        coverage, streams,
    ),
)  # fmt: skip


@given(record=records)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    line = encode(record)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == record


@given(record=records)
def test_frame_of_a_line_equals_the_result_of_decode(record: Record) -> None:
    line = encode(record)[:-1]

    assert frame_of(line) == (record if letter_of(line) == b"F" else None)


@given(frame=frames, place=st.floats(0, 1, exclude_max=True), wrong=st.integers(1, 255))
def test_frame_of_a_changed_line_is_none(frame: Frame, place: float, wrong: int) -> None:
    line = bytearray(encode(frame)[:-1])
    line[int(place * len(line))] ^= wrong

    assert frame_of(bytes(line)) is None


@given(record=records, place=st.floats(0, 1, exclude_max=True), wrong=st.integers(1, 255))
def test_a_changed_byte_makes_no_other_record(record: Record, place: float, wrong: int) -> None:
    line = bytearray(encode(record)[:-1])
    line[int(place * len(line))] ^= wrong

    # a line feed in the place of the byte makes two lines: neither is a record
    assert [decode(piece) for piece in bytes(line).split(b"\n")] in ([None], [None, None])


@pytest.mark.parametrize(
    "record",
    [
        Frame(AT_US, 3, b'{"data":{"p":"1.5"},"stream":"trade.SOL_USDC"}'),
        Started(1),
        Lost(11111111, 1, GapCause.CONNECTION_LOST),
    ],
)
def test_no_byte_changed_in_any_way_makes_another_record(record: Record) -> None:
    line = encode(record)[:-1]

    for place in range(len(line)):
        for wrong in range(1, 256):
            changed = bytearray(line)
            changed[place] ^= wrong
            assert decode(bytes(changed)) is None or b"\n" in changed


@given(record=records, kept=st.floats(0, 1, exclude_max=True))
def test_a_line_that_is_cut_is_no_record(record: Record, kept: float) -> None:
    line = encode(record)[:-1]

    assert decode(line[: int(kept * len(line))]) is None


@pytest.mark.parametrize("record", [Closing(1, 1), CaughtUp(1), Rebased(1, 5)])
def test_records_that_are_not_journaled_have_no_line(record: Record) -> None:
    assert encode(record) == b""


def test_a_frame_is_a_line_that_a_person_can_read() -> None:
    line = encode(Frame(AT_US, 3, b'{"a":1}'))

    assert line == b'%08x 1790915531026999 F 3 {"a":1}\n' % crc32(b'1790915531026999 F 3 {"a":1}')


@pytest.mark.parametrize(
    ("record", "payload"),
    [
        (Opened(7, 2, "public-1", NAMES),
         b'7 O 2 {"name":"public-1","streams":["trade.SOL_USDC","account.orderUpdate"]}'),
        (Subscribed(7, 2, NAMES[:1]), b'7 C 2 {"streams":["trade.SOL_USDC"]}'),
        (Answered(7, 2, 5), b"7 A 2 5"),
        (Answered(7, 2, 5, NAMES, 3), b"7 A 2 5 trade.SOL_USDC account.orderUpdate until=3"),
        (Answered(7, 2, 5, (), None, is_inferred=True), b"7 A 2 5 until=0"),
        (Suspected(7, 2, NAMES[0], None), b'7 D 2 {"stream":"trade.SOL_USDC","since_us":0}'),
        (Lost(7, 2, GapCause.CONNECTION_LOST), b'7 L 2 {"cause":"connection lost"}'),
        (RestBody(7, NAMES[0], BodyKind.MAIN, b"[1]"), b"7 R 0 trade.SOL_USDC [1]"),
        (RestBody(7, NAMES[1], BodyKind.FILLS, b"[]"), b"7 R 0 account.orderUpdate/fills []"),
        (Watermarks(7, {NAMES[0]: 6}), b'7 H 0 {"trade.SOL_USDC":6}'),
        (Started(7), b"7 P 0 "),
        (Missing(7, GapCause.NOT_IN_JOURNAL, {NAMES[0]: (5, 6)}),
         b'7 N 0 {"trade.SOL_USDC":[5,6]}'),
        (Missing(7, GapCause.NOT_IN_JOURNAL, None, 5), b'7 N 0 {"*":[5,7]}'),
        (Missing(7, GapCause.OVERFLOW, {NAMES[0]: (5, 6)}),
         b'7 N 0 overflow {"trade.SOL_USDC":[5,6]}'),
    ],
)  # fmt: skip
def test_the_lines_of_rare_records(record: Record, payload: bytes) -> None:
    line = encode(record)

    assert verified(line[:-1]) == payload
    assert letter_of(line) == payload.split(b" ")[1]
    assert decode_payload(payload) == record


def test_a_number_may_stand_in_the_place_of_the_connection() -> None:
    line = encode(Missing(7, GapCause.NOT_IN_JOURNAL, {}), number=4_096)

    assert number_of(line[9:-1]) == 4_096


@pytest.mark.parametrize(
    ("rest", "record"),
    [
        (b'F 3 {"a":1}', Frame(AT_US, 3, b'{"a":1}')),
        (b"B 1 YQpi", Frame(AT_US, 1, b"a\nb")),
        (b"A 1 ", Answered(AT_US, 1, AT_US)),
        (b'D 1 {"stream":"liquidation","since_us":0}', Suspected(AT_US, 1, "liquidation", None)),
        (b'L 1 {"cause":"silent"}', Lost(AT_US, 1, GapCause.STALE)),
        (b'L 1 {"cause":"buffer full"}', Lost(AT_US, 1, GapCause.OVERFLOW)),
        (b'L 1 {"cause":"of a later version"}', Lost(AT_US, 1, GapCause.CONNECTION_LOST)),
        (b"L 1 {}", Lost(AT_US, 1, GapCause.CONNECTION_LOST)),
        (b'N 0 {"liquidation":[1,2]}',
         Missing(AT_US, GapCause.NOT_IN_JOURNAL, {"liquidation": (1, 2)})),
        (b'S 0 {"connections":{"4":{"liquidation":7}},"deafness":{"ears":{}},"sparse":["a"]}',
         SegmentState(AT_US, {4: {"liquidation": 7}}, {"ears": {}}, ("a",))),
        (b'S 0 {"connections":{}}', SegmentState(AT_US, {}, {}, ())),
    ],
)  # fmt: skip
def test_lines_of_earlier_versions_are_read(rest: bytes, record: Record) -> None:
    assert decode(b"1790915531026999 " + rest) == record


@pytest.mark.parametrize("body", [b"a\nb", b"\n", b"\xff\n\xfe", b"", b"\xff{"])
def test_any_frame_fits_on_one_line(body: bytes) -> None:
    line = encode_frame(Frame(5, 1, body))

    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == Frame(5, 1, body)


def test_line_feeds_of_a_rest_body_become_spaces() -> None:
    line = encode(RestBody(5, "depth.SOL_USDC", BodyKind.MAIN, b'{"a":\n1}'))

    assert decode(line[:-1]) == RestBody(5, "depth.SOL_USDC", BodyKind.MAIN, b'{"a": 1}')


DAMAGED = [
    b"F 2", b"Z 1 {}", b"F x {}", b"B 1 !!", b"L 1 5", b"S 0 " + b"[" * 100_000,
    b'O 1 {"name":"a"}', b'O 1 {"streams":5}', b'O 1 {"streams":[5]}', b'H 0 {"a":"x"}',
    b'H 0 {"a":Infinity}', b"A 1 soon", b"A 1 1 until=then", b"A 1 \xff", b"R 0 a/b c",
    b'N 0 {"a":[1]}', b"N 0 {}x", b"N 0 \xff{}", b'D 1 {"stream":5,"since_us":1}',
    b'S 0 {"deafness":[1]}', b'S 0 {"sparse":"ab"}',
]  # fmt: skip


@pytest.mark.parametrize("rest", DAMAGED, ids=range(len(DAMAGED)))
def test_a_nonsensical_line_is_no_record(rest: bytes) -> None:
    payload = b"1790915531026999 " + rest

    assert decode(payload) is None
    assert decode(b"%08x %b" % (crc32(payload), payload)) is None


@pytest.mark.parametrize(
    "line",
    [b"", b"rubbish", b"1" * 17 + b" F 1 {}", b"31026999 F 1 {}", b"x" * 16 + b" F 1 {}"],
)
def test_a_line_without_a_checksum_must_begin_with_a_whole_time(line: bytes) -> None:
    """The rest of a line with a checksum, cut in its middle, must not pass as a record."""
    assert decode(line) is None


@pytest.mark.parametrize("spoil", [bytes.upper, lambda digits: b" " + digits[1:]])
def test_a_checksum_is_spelled_in_one_way(spoil: Callable[[bytes], bytes]) -> None:
    for number in range(1, 100):
        line = encode(Frame(AT_US, number, b"{}"))[:-1]
        if (changed := spoil(line[:8]) + line[8:]) != line:
            assert decode(changed) is None
