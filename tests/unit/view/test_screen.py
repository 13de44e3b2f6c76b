"""The live view and the plain lines of a literal view model, at 80 and at 200 columns."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from bridge.view.facts import BridgeStatus, ConnectionStatus, StreamStatus, WorkerStatus
from bridge.view.layout import fitting
from bridge.view.plain import stream_lines, summary_lines
from bridge.view.screen import screen, side_style
from bridge.view.view_model import BridgeRow, ConsumerRow, State, StreamRow, ViewModel

NOW_US = 1_700_000_000_000_000
STATUS = BridgeStatus(
    instance="tokyo-1",
    updated_us=NOW_US,
    exchange="wss://ws.backpack.exchange",
    pending=7,
    connections=(ConnectionStatus(connected=True, wanted=3, confirmed=2),),
)
WORKER = WorkerStatus.model_validate(
    {
        "group": "book",
        "consumer": "w1",
        "updated_us": NOW_US,
        "handled": 12_345,
        "rate": 98.4,
        "latency_ms": {"p50": 0.62, "p99": 4.1},
        "made": "SOL_USDC 98.97/98.99",
    }
)


def stream(name: str, **given: Any) -> StreamRow:
    whole: dict[str, Any] = {
        "rate": 42.1,
        "entries": 1204,
        "age_us": 100_000,
        "text": "sell 1.50 @ 99.01",
        "status": StreamStatus(),
        "marks": (),
        "is_failing": False,
    }
    return StreamRow(name=name, **(whole | given))


def view_model(**given: Any) -> ViewModel:
    whole: dict[str, Any] = {
        "now_us": NOW_US,
        "bridges": (BridgeRow(STATUS, State.UP, NOW_US - 42_000_000, ()),),
        "streams": (
            stream("trade.SOL_USDC"),
            stream(
                "depth.SOL_USDC", status=StreamStatus.model_validate({"gaps": 2}), marks=("2 gaps",)
            ),
        ),
        "consumers": (ConsumerRow("book/w1", WORKER, State.UP, 0),),
        "quarantined": 0,
        "newest_quarantined": "",
        "receive_ms": (0.8, 3.1),
        "curve": (1.0, 2.0),
        "unreadable": 0,
    }
    return ViewModel(**(whole | given))


def painted(shown: ViewModel, width: int, height: int, *footer: str) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, legacy_windows=False)
    console.print(screen(shown, width, height, "redis://r:6379/0", footer), end="")
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 200])
def test_the_view_shows_bridge_streams_and_consumers(width: int) -> None:
    lines = painted(view_model(), width, 14, "q leaves")
    text = "\n".join(lines)
    assert lines[0].startswith(" ● bridge tokyo-1  up 42s   from wss://ws.backpack.exchange")
    assert lines[1].startswith(" 84.2/s ▅█  2 streams  2 gaps  0 quarantined  exchange → bridge")
    assert " trade.SOL_USDC    42.1      1,204   0.1s  sell 1.50 @ 99.01" in lines
    assert " depth.SOL_USDC    42.1      1,204   0.1s  2 gaps  sell 1.50 @ 99.01" in lines
    assert "book/w1     98.4     12,345   0.6ms   4.1ms  SOL_USDC 98.97/98.99" in text
    assert lines[-1] == "q leaves"


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("height", [14, 24, 60])
@pytest.mark.parametrize("count", [1, 50])
def test_the_view_fills_its_window_and_never_more(width: int, height: int, count: int) -> None:
    streams = tuple(stream(f"trade.M{n:02}_USDC", text="w" * 300) for n in range(count))
    lines = painted(view_model(streams=streams), width, height, "q leaves")
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    assert lines[-1] == "q leaves"


def test_streams_that_do_not_fit_are_counted() -> None:
    streams = tuple(stream(f"trade.M{n:02}_USDC") for n in range(50))
    lines = painted(view_model(streams=streams), 80, 20)
    shown = [line for line in lines if line.startswith(" trade.M")]
    [rest] = [line for line in lines if "more streams" in line]
    assert rest.startswith(f" … and {50 - len(shown)} more streams, ")
    assert len(shown) > 5


@pytest.mark.parametrize("width", range(60, 100))
def test_a_figure_is_shown_with_its_name_or_not_at_all(width: int) -> None:
    line = painted(view_model(), width, 14)[1].replace("\u00a0", " ")
    assert not re.search(r"(bridge|p99) …", line), line


def test_a_command_to_open_the_view_is_wrapped_at_the_edge_and_not_cut() -> None:
    way = "BRIDGE_REDIS__URL=redis://127.0.0.1:6379/0 .venv/bin/python -m bridge tap 'trade.*'"
    lines = painted(view_model(), 80, 24, way)
    assert " ".join(lines[-2:]) == way
    assert len(lines) == 24


def test_a_long_path_in_the_footer_takes_the_lines_it_needs() -> None:
    lines = painted(view_model(), 80, 24, "logs in /" + "x" * 200)
    assert (len(lines), "".join(lines).count("x" * 70)) == (24, 2)


def test_silence_and_troubles_are_reported() -> None:
    silent = BridgeRow(STATUS, State.SILENT, NOW_US - 90_000_000, ())
    ill = BridgeRow(STATUS, State.UP, NOW_US, ("public-1 is not connected to the exchange: x",))
    gone = ConsumerRow("book/w1", WORKER, State.SILENT, 9_000_000)
    text = "\n".join(painted(view_model(bridges=(silent, ill), consumers=(gone,)), 100, 24))
    assert "● bridge tokyo-1  silent for 90s" in text
    assert "! tokyo-1: public-1 is not connected to the exchange: x" in text
    assert "silent for 9.0s" in text


def test_an_empty_redis_is_reported_as_such() -> None:
    text = "\n".join(painted(view_model(bridges=(), streams=(), consumers=()), 80, 14))
    assert "no bridge has run here yet" in text
    assert "no consumer at work" in text


def test_without_the_first_shard_the_view_reports_it_and_not_that_there_are_none() -> None:
    unavailable = {0: "shard 0 does not answer: timed out"}
    shown = view_model(bridges=(), consumers=(), unavailable=unavailable)
    text = "\n".join(painted(shown, 80, 24))
    assert "shard 0 does not answer: timed out" in text
    assert "trade.SOL_USDC" in text
    assert "consumers are not known without shard 0" in text
    assert "no bridge has run here" not in text
    assert "no consumer at work" not in text
    assert "  ! shard 0 does not answer: timed out" in list(summary_lines(shown))


@pytest.mark.parametrize(
    ("kind", "text", "style"),
    [
        ("trade", "buy 1.50 @ 99.01", "green"),
        ("trade", "sell 1.50 @ 99.01", "red"),
        ("depth", "bid 99.00 × 3", "green"),
        ("depth", "ask 99.00 removed", "red"),
        ("gap", "what is sold and bid", "bold yellow"),
        (None, "GAP: 5…9 missing (skipped)", "bold yellow"),
        ("ticker", "98.5 -1.50% in 24 h, buyers", ""),
    ],
)
def test_sides_have_colours(kind: str | None, text: str, style: str) -> None:
    assert side_style(kind, text) == style


def test_changes_since_the_last_poll_are_highlighted() -> None:
    was = view_model(streams=(stream("trade.A_B"), stream("trade.C_D")))
    now = view_model(streams=(stream("trade.A_B"), stream("trade.C_D", text="buy 2 @ 3")))
    console = Console(file=io.StringIO(), width=80, height=24, legacy_windows=False)
    shown = console.render_lines(screen(now, 80, 24, "r", before=was))
    bold = {
        segment.text: segment.style is not None and bool(segment.style.bold)
        for line in shown
        for segment in line
    }
    assert (bold["sell 1.50 @ 99.01"], bold["buy 2 @ 3"]) == (False, True)


def test_square_brackets_of_the_exchange_are_no_markup() -> None:
    shown = view_model(streams=(stream("trade.SOL_USDC", text="[red]x[/red] [/]"),))
    assert any("[red]x[/red] [/]" in line for line in painted(shown, 80, 14))


def test_plain_lines_show_the_same() -> None:
    assert list(summary_lines(view_model(quarantined=1))) == [
        "22:13:20.000 2 streams, 84 entries/s, exchange → bridge 0.8ms p99 3.1ms, 2 gaps, "
        "1 quarantined, 7 waiting for Redis",
        "  ! depth.SOL_USDC: 2 gaps",
        "  book/w1: 12,345 handled, 0.6ms p99 4.1ms; SOL_USDC 98.97/98.99",
    ]


def test_plain_lines_of_streams_are_aligned() -> None:
    shown = view_model(
        streams=(stream("trade.A_B"), stream("ticker.LONG_B", rate=None, age_us=None))
    )
    assert list(stream_lines(shown)) == [
        "  trade.A_B        42.1/s     1,204 entries   0.1s  sell 1.50 @ 99.01",
        "  ticker.LONG_B     1,204 entries  never  sell 1.50 @ 99.01",
    ]


def test_when_room_is_short_each_type_is_shown_and_troubles_take_a_third() -> None:
    names = [f"{kind}.{m}_B" for kind in ("trade", "depth", "ticker") for m in "ABC"]
    streams = [stream(name, marks=("1 gap",) if ".C" in name else ()) for name in names]
    shown, rest = fitting(streams, 5)
    assert [row.name for row in shown] == [
        "trade.A_B",
        "trade.B_B",
        "trade.C_B",
        "depth.A_B",
        "ticker.A_B",
    ]
    assert len(rest) == 4


def test_all_streams_are_shown_if_they_fit() -> None:
    streams = [stream("trade.A_B"), stream("trade.B_B")]
    assert fitting(streams, 2) == (streams, [])
