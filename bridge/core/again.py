"""Apply journaled records to a core: in a replay, while catching up, in a backfill (pure)."""

from collections.abc import Iterable, Iterator, Sequence

from bridge.core.core import Core
from bridge.core.records import Frame, Frames, Record
from bridge.protocol.rest import BadBody


def apply_again(core: Core, record: Record | Frames, positions: Sequence[int], at_us: int) -> None:
    """Apply the records at these journal positions, as received at `at_us` by the steady clock."""
    if isinstance(record, Frames):
        core.apply_frames(record, positions, at_us)
        return
    try:
        core.apply(record, positions[0], at_us)
    except BadBody:
        return  # it was refused when it was received


def read_at_once(
    entries: Iterable[tuple[int, Record]],
) -> Iterator[tuple[Sequence[int], Record | Frames]]:
    """Records of a journal with their positions; frames that were read at once are one `Frames`."""
    first: Frame | None = None
    positions: list[int] = []
    bodies: list[bytes] = []
    for position, record in entries:
        if type(record) is Frame:
            if first is None or record[:2] != first[:2]:
                if first is not None:
                    yield positions, Frames(*first[:2], bodies)
                first, positions, bodies = record, [], []
            positions.append(position)
            bodies.append(record.body)
            continue
        if first is not None:
            yield positions, Frames(*first[:2], bodies)
            first = None
        yield (position,), record
    if first is not None:
        yield positions, Frames(*first[:2], bodies)
