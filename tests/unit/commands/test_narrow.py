"""The output of `status` and `consumers status` on a terminal of 80 columns."""

import io
from typing import Any

from rich.console import Console

from bridge.commands import status
from bridge.view.facts import BridgeStatus, Sample, StreamFacts
from bridge.view.history import History
from bridge.view.verdict import judge
from bridge.view.view_model import draw
from consumers.commands import status as consumers_status
from consumers.kit.lag import GroupLag, StreamLag, Worker

NOW_US = 1_700_000_000_000_000
STREAM = "stockIndicativeQuote.NVDA"
BRIDGE: dict[str, Any] = {
    "instance": "tokyo-1", "updated_us": NOW_US, "started_us": NOW_US - 60_000_000, "pid": 4711,
    "host": "server-17", "exchange": "wss://ws.backpack.exchange",
    "connections": [{"name": "public-1", "connected": True, "wanted": 1, "confirmed": 1}],
    "streams": {
        STREAM: {
            "published": 1_234_560, "late": 12_345, "gaps": 12, "recovered": 11, "pending": 3456
        }
    },
}  # fmt: skip
STATUS = f"""\
healthy: 1 bridge up, 1 stream, 12 gaps

Bridges
 bridge    state        process             exchange
───────────────────────────────────────────────────────────────────────
 tokyo-1   up for 60s   4711 on server-17   wss://ws.backpack.exchange

Connections
 bridge    connection   wanted   received
──────────────────────────────────────────
 tokyo-1   public-1          1          1

Streams
 stream                        entries   gaps   pending    age   marks
─────────────────────────────────────────────────────────────────────────
 {STREAM}   1,234,567     12     3,456   0.0s   12 gaps
left out, for want of room: published, late, recovered

Quarantined messages: 0
"""
GROUPS = """\
12 dead letters, 3 entries missed: 1 group, lag 1234567, at most 3 h behind

candles  ordered  1 worker  3/s  lag 1234567  behind 3 h  dead letters 12
missed 3
 stream                           lag   pending   dead   missed
────────────────────────────────────────────────────────────────
 stockIndicativeQuote.NVDA   ~1234567    123456     12        3
left out, for want of room: position, oldest, behind, owner
"""


def narrow() -> Console:
    return Console(file=io.StringIO(), width=80, legacy_windows=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def test_status_keeps_names_and_numbers_whole_and_states_what_it_leaves_out() -> None:
    last = {"type": "ticker", "received_us": str(NOW_US)}
    facts = StreamFacts(length=9, added=1_234_567, last_id="1-1", last=last)
    history, console = History(), narrow()
    bridge = BridgeStatus.model_validate(BRIDGE)
    history.add(Sample(NOW_US, bridges=(bridge,), streams={STREAM: facts}))
    view_model = draw(history)

    status.show(view_model, judge(view_model), console)

    assert printed(console) == STATUS


def test_consumers_status_keeps_names_lag_pending_and_dead() -> None:
    stream = StreamLag(
        STREAM, "1788367440100-381731645000", 1_234_567, "counted", 10_800.0, 123_456, 3.0,
        "server-17-4711", 12, 3, "",
    )  # fmt: skip
    worker = Worker("server-17-4711", 0.5, 10, 0, 0, 0, 0, 3.0, 1)
    console = narrow()

    consumers_status.show(
        [GroupLag("candles", "ordered", (stream,), (worker,))], {}, console, as_json=False
    )

    assert printed(console) == GROUPS


def test_a_group_whose_workers_are_silent_is_named_first() -> None:
    silent = Worker("w", 60.0, 10, 0, 0, 0, 0, 3.0, 1)
    stream = StreamLag(STREAM, "1-1", 0, "exact", 0.0, 0, 0.0, "", 0, 0, "")
    console = narrow()

    consumers_status.show(
        [GroupLag("candles", "ordered", (stream,), (silent,)), GroupLag("node", "", (stream,))],
        {}, console, as_json=False,
    )  # fmt: skip

    first, _, *lines = printed(console).splitlines()
    assert first == "no worker of candles: 2 groups, lag 0, at most 0.0 s behind"
    assert "candles  ordered  0 workers  lag 0" in lines
    assert "node  of another program  lag 0" in lines
