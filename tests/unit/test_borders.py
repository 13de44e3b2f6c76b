"""For any external input, a border function returns a value or raises the one error it documents.

Each border is tested with garbage, with nonsensical JSON, and with modified real messages: bytes
that are not UTF-8, deep nesting, numbers of 5,000 digits, implausible times.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.entry import BadEntry, decode
from bridge.contract.streams import BadStreamName, is_stream, parse_stream, stream_named
from bridge.core.records import Frame
from bridge.journal.codec import decode as decode_line
from bridge.journal.codec import encode_frame
from bridge.protocol import envelope, rest
from bridge.redis.heartbeat import _as_text, _status, _watermarks
from bridge.runtime.markets import read_markets
from bridge.runtime.patterns import parse_pattern
from bridge.view.facts import BridgeStatus, WorkerStatus, read_statuses
from consumers.kit import lag
from tests.support import frames
from tests.support.core_subject import (
    BALANCES,
    BOOK_TICKERS,
    DEPTHS,
    KLINES,
    ORDERS,
    TICKERS,
    TRADES,
    CoreSubject,
)

NOW_US = 1_790_000_000_000_000
FRAMES = [text for name, text in vars(frames).items() if name.isupper() and isinstance(text, str)]
ROWS = (
    '[{"clientId":7,"fee":"0.01","feeSymbol":"USDC","isMaker":false,"orderId":"1","price":"98.9",'
    '"quantity":"1.5","side":"Bid","symbol":"SOL_USDC","timestamp":"2026-09-02T16:43:00.123",'
    '"tradeId":99}]',
    '{"asks":[["99","1"]],"bids":[["98","2"]],"lastUpdateId":"11","timestamp":1788367430247494}',
    '{"USDC":{"available":"1","locked":"2","staked":"0"}}',
    '[{"symbol":"SOL_USDC","marketType":"SPOT","orderBookState":"Open"}]',
)
DEEP = "[" * 100_000
ODD = st.sampled_from(
    [
        "9" * 5_000,
        "1e999",
        "NaN",
        DEEP,
        '{"a":' * 5_000,
        '"\\ud800"',
        "-1",
        "18446744073709551616",
        "null",
        '""',
        "1" + "0" * 19,
        '{"e":"trade"}',
        '"2026-99-99T00:00:00"',
        "[[[[]]]]",
    ]
)


def changed(text: str, at: int, cut: int, put: bytes) -> bytes:
    raw = text.encode()
    at %= len(raw) + 1
    return raw[:at] + put + raw[at + cut :]


def values_replaced(text: str, which: int, value: str) -> bytes:
    """The message with its value number `which` replaced by `value`, which is raw JSON."""
    parts = text.split(":")
    at = 1 + which % max(1, len(parts) - 1)
    if at < len(parts):
        tail = min((parts[at].find(end) for end in ",}" if end in parts[at]), default=-1)
        parts[at] = value + (parts[at][tail:] if tail >= 0 else "")
    return ":".join(parts).encode()


REAL = st.sampled_from([*FRAMES, *ROWS])
FROM_OUTSIDE = st.one_of(
    st.binary(max_size=40),
    ODD.map(str.encode),
    st.builds(changed, REAL, st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)),
    st.builds(values_replaced, REAL, st.integers(0, 30), ODD),
)


def lines(body: bytes) -> bytes:
    """A journal's line with this body and a correct checksum."""
    return encode_frame(Frame(NOW_US, 1, body))


Border = Callable[[bytes], Any]
BORDERS: Mapping[str, tuple[Border, tuple[type[Exception], ...]]] = {
    "envelope": (envelope.parse, ()),
    "depth": (rest.depth_body, (rest.BadBody,)),
    "trades": (lambda body: rest.trades_page("SOL_USDC", body, NOW_US), (rest.BadBody,)),
    "fills": (lambda body: rest.fills_page(body, NOW_US), (rest.BadBody,)),
    "orders": (rest.orders_rows, (rest.BadBody,)),
    "positions": (rest.positions_rows, (rest.BadBody,)),
    "balances": (rest.balances_rows, (rest.BadBody,)),
    "row count": (rest.row_count, (rest.BadBody,)),
    "best prices": (rest.best_prices, (rest.BadBody,)),
    "account": (
        lambda body: rest.account_event(parse_stream("account.balanceUpdate"), body, NOW_US),
        (rest.BadBody,),
    ),
    "markets": (read_markets, (ValueError,)),
    "journal": (decode_line, ()),
    "journal with a checksum": (lambda body: decode_line(lines(body)), ()),
    "peers": (_status, ()),
    "watermarks": (lambda body: _watermarks(_as_text({b"trade.SOL_USDC": body}), NOW_US), ()),
    "worker": (lag._status, ()),
}
TEXTS: Mapping[str, tuple[Callable[[str], Any], tuple[type[Exception], ...]]] = {
    "registry": (is_stream, ()),
    "stream": (stream_named, ()),
    "stream name": (parse_stream, (BadStreamName,)),
    "pattern": (parse_pattern, (BadStreamName,)),
    "bridge status": (lambda text: read_statuses(BridgeStatus, {"a": text}), ()),
    "worker status": (lambda text: read_statuses(WorkerStatus, {"a": text}), ()),
    "entry's extra": (lambda text: decode({"type": "trade", "extra": text}), (BadEntry,)),
}


@pytest.mark.parametrize("name", BORDERS)
@given(body=FROM_OUTSIDE)
def test_border_any_bytes_are_a_value_or_its_one_error(name: str, body: bytes) -> None:
    read, errors = BORDERS[name]
    with contextlib.suppress(errors):
        read(body)


@pytest.mark.parametrize("name", TEXTS)
@given(body=FROM_OUTSIDE)
def test_border_any_text_is_a_value_or_its_one_error(name: str, body: bytes) -> None:
    read, errors = TEXTS[name]
    with contextlib.suppress(errors):
        read(body.decode(errors="replace"))


@given(bodies=st.lists(FROM_OUTSIDE, max_size=5))
def test_core_any_frames_are_entries_or_in_the_quarantine_and_later_ones_are_published(
    bodies: list[bytes],
) -> None:
    core = CoreSubject(TRADES, DEPTHS, TICKERS, ORDERS, BALANCES, KLINES, BOOK_TICKERS)
    for body in bodies:
        core.receive(body)

    core.receive(frames.TICKER)

    assert core.queue(TICKERS).slots


@pytest.mark.parametrize(
    ("words", "homes"),
    [
        ("json.loads(", {"bridge/contract/json_text.py", "bridge/protocol/envelope.py"}),
        # these dates are already valid; all other code uses `moments.moment`
        ("fromtimestamp(", {"consumers/handlers/archive.py", "consumers/handlers/tail.py"}),
        # each has a bound of its own: digits of a file's or line's field, a header, a stream name
        (
            ".isdigit()",
            {
                "bridge/contract/streams.py",
                "bridge/feed/limits.py",
                "bridge/journal/codec.py",
                "bridge/protocol/periods.py",
            },
        ),
        (
            ".isdecimal()",
            {
                "bridge/commands/tap.py",
                "bridge/contract/entry_form.py",
                "bridge/contract/whole_number.py",
                "bridge/inspect/audit.py",
                "bridge/journal/inspection.py",
                "bridge/journal/segments.py",
                "bridge/runtime/checks/redis_server.py",
                "bridge/runtime/time_range.py",
            },
        ),
    ],
)
def test_foreign_texts_are_read_as_json_or_number_by_functions_that_cannot_raise(
    words: str, homes: set[str]
) -> None:
    """Code outside these files uses `json_text.parsed` and `whole_number`, which are bounded."""
    root = Path(__file__).parents[2]
    found = {
        str(path.relative_to(root))
        for room in ("bridge", "consumers", "backpack_bridge")
        for path in (root / room).rglob("*.py")
        if words in path.read_text()
    }
    assert found == homes
