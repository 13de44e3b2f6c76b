"""A field of the exchange with the name of one of the bridge's own columns is kept in `extra`."""

import json

import pytest

from bridge.contract.streams import parse_stream
from bridge.core.tail import identify
from tests.support import frames
from tests.support.core_subject import CoreSubject, changed

FRAMES = {
    json.loads(frame)["stream"]: frame
    for frame in (
        frames.TRADE,
        frames.DEPTH,
        frames.BOOK_TICKER,
        frames.KLINE_OPEN,
        frames.MARK_PRICE,
        frames.LIQUIDATION,
        frames.ORDER_ACCEPTED,
        frames.BALANCE_UPDATE,
        changed(frames.RFQ_CANDIDATE, e="rfqSplit"),
    )
}


@pytest.mark.parametrize("stream", FRAMES)
def test_field_with_the_name_of_a_column_of_ours_is_kept_in_extra(stream: str) -> None:
    plain, more = CoreSubject(stream), CoreSubject(stream)
    assert plain.receive(FRAMES[stream]) == stream
    [expected] = plain.named(stream)
    theirs = {name: "theirs" for name in expected if name not in json.loads(FRAMES[stream])["data"]}
    assert "received_us" in theirs

    assert more.receive(changed(FRAMES[stream], **theirs)) == stream

    [found] = more.named(stream)
    before = json.loads(expected.pop("extra") or "{}")
    assert json.loads(found["extra"]) == before | theirs
    assert {name: text for name, text in found.items() if name != "extra"} == expected
    known = identify(parse_stream(stream), found)
    [slot] = more.queue(stream).slots
    assert known is not None
    assert slot.entry.key in {known.key, ()}  # (): identified by its number
