"""Frames read from a journal together are applied in order, each with its position."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.again import read_at_once
from bridge.core.records import Frame, Frames, Record, Started

frames = st.builds(Frame, st.integers(1, 2), st.integers(1, 2), st.binary(max_size=2))
records: st.SearchStrategy[Record] = frames | st.builds(Started, st.integers(1, 2))


@given(found=st.lists(records, max_size=12))
def test_frames_read_at_once_are_all_records_in_their_order(found: list[Record]) -> None:
    placed = list(enumerate(found))
    parts = list(read_at_once(placed))

    apart = [
        pair
        for positions, part in parts
        for pair in (
            zip(positions, (Frame(*part[:2], body) for body in part.bodies), strict=True)
            if isinstance(part, Frames)
            else [(positions[0], part)]
        )
    ]
    assert apart == placed


def test_frames_are_together_if_one_connection_received_them_at_one_time() -> None:
    first, second = Frame(1, 7, b"a"), Frame(1, 7, b"b")
    other, later = Frame(1, 8, b"c"), Frame(2, 8, b"d")

    parts = read_at_once([(10, first), (11, second), (12, other), (13, later), (14, Started(3))])

    assert list(parts) == [
        ([10, 11], Frames(1, 7, [b"a", b"b"])),
        ([12], Frames(1, 8, [b"c"])),
        ([13], Frames(2, 8, [b"d"])),
        ((14,), Started(3)),
    ]
