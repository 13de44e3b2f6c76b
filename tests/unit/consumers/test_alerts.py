"""The alerts sample: what is worth an alert, and what it says. Where it goes is another test's."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.events import BookTicker, Gap
from bridge.errors import ConfigError
from consumers.handlers import alerts
from consumers.testing import Given, Tape, Trial

TRADES = "trade.SOL_USDC"


class Memory:
    """A webhook that only remembers."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.alerts: list[dict[str, str]] = []

    async def send(self, key: str, alert: dict[str, str]) -> int:
        self.keys.append(key)
        self.alerts.append(alert)
        return 1


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    one = Memory()
    monkeypatch.setattr(alerts, "Webhook", lambda *_: one)
    return one


def alerted(memory: Memory, given: list[Given], stream: str = TRADES, **options: str) -> Trial:
    trial = Trial(alerts.Alerts, stream, **options)
    trial.give(*given)
    return trial


def prices(tape: Tape, *texts: str, after_s: float = 1) -> list[Given]:
    return [tape.trade(text, after_s=after_s) for text in texts]


def test_a_rise_from_the_lowest_price_of_the_window_is_an_alert(memory: Memory) -> None:
    alerted(memory, prices(Tape(), "99.20", "99.00", "99.50", "99.99"))
    assert memory.alerts == [
        {
            "text": "SOL_USDC +1.00 % within 60 s: 99.00 → 99.99",
            "kind": "price_move",
            "stream": "trade.SOL_USDC",
            "symbol": "SOL_USDC",
            "entry_id": "1788367444000-40",
            "happened_at": "2026-09-02T16:44:04.000+00:00",
            "percent": "1.00",
            "from_price": "99.00",
            "price": "99.99",
        }
    ]
    assert memory.keys == ["trade.SOL_USDC/1788367444000-40"]


def test_a_fall_from_the_highest_price_is_one_too_and_the_window_begins_anew(
    memory: Memory,
) -> None:
    alerted(memory, prices(Tape(), "100", "101", "99.9", "99.5", "98.9"), percent="1")
    assert [one["text"] for one in memory.alerts] == [
        "SOL_USDC +1.00 % within 60 s: 100 → 101",
        "SOL_USDC -1.09 % within 60 s: 101 → 99.9",
        "SOL_USDC -1.00 % within 60 s: 99.9 → 98.9",
    ]


def test_a_slow_move_is_none(memory: Memory) -> None:
    alerted(memory, prices(Tape(), "100", "100.6", "101.2", after_s=70))
    assert memory.alerts == []


def test_prices_are_compared_as_numbers(memory: Memory) -> None:
    alerted(memory, prices(Tape(), "99.5", "100.00", "100.1", "99.6"))
    assert memory.alerts == []


def test_the_window_is_there_after_a_takeover(memory: Memory) -> None:
    tape = Tape()
    trial = alerted(memory, prices(tape, "100", "99"), percent="2")
    trial.take_over()
    trial.give(*prices(tape, "101"))
    assert [one["from_price"] for one in memory.alerts] == ["99"]


def test_an_alert_that_is_sent_again_has_the_same_key(memory: Memory) -> None:
    tape = Tape()
    trial = alerted(memory, prices(tape, "100"))
    trial.crash_after(*prices(tape, "105"))
    assert memory.keys == ["trade.SOL_USDC/1788367442000-20"] * 2


def test_a_gap_is_an_alert_unless_repaired_or_a_streams_start(memory: Memory) -> None:
    tape = Tape()
    start = tape.event(Gap, to=0, cause="start")
    alerted(memory, [start, tape.trades_missing(3), tape.trades_missing(2, repaired=True)])
    assert [(one["kind"], one["text"]) for one in memory.alerts] == [
        ("gap", "trade.SOL_USDC: 1 to 3 are missing (skipped)")
    ]


def test_a_gap_without_numbers_says_when_nobody_listened(memory: Memory) -> None:
    times = {"from_us": 1_788_367_440_000_000, "to_us": 1_788_367_445_500_000}
    gap = Tape().event(Gap, cause="disconnected", **times)
    alerted(memory, [gap], stream="bookTicker.SOL_USDC")
    assert memory.alerts[0]["text"] == (
        "bookTicker.SOL_USDC: nobody listened from 2026-09-02T16:44:00.000+00:00 to "
        "2026-09-02T16:44:05.500+00:00 (disconnected)"
    )


def test_other_events_are_none(memory: Memory) -> None:
    alerted(memory, [Tape().event(BookTicker)], stream="bookTicker.SOL_USDC")
    assert memory.alerts == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"percent": "0"}, "percent=0: write a number above 0"),
        ({"window_s": "soon"}, "window_s=soon"),
        ({"percent": "NaN"}, "percent=NaN"),
        ({"timeout_s": "20"}, "timeout_s=20: write less than 10"),
    ],
)
def test_options_that_cannot_be_are_refused(
    memory: Memory, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Trial(alerts.Alerts, TRADES, **options)


@pytest.mark.parametrize("url", ["", "hooks.example.com/secret", "ftp://x/secret", "https:///x"])
def test_an_address_that_is_none_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("ALERTS_WEBHOOK_URL", url)
    with pytest.raises(ConfigError, match="ALERTS_WEBHOOK_URL: write") as told:
        Trial(alerts.Alerts, TRADES)
    assert "secret" not in str(told.value)


@given(st.lists(st.tuples(st.integers(90, 110), st.integers(1, 40)), max_size=25))
def test_alerts_are_those_of_a_plain_reference(steps: list[tuple[int, int]]) -> None:
    memory = Memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alerts, "Webhook", lambda *_: memory)
        tape = Tape()
        alerted(memory, [tape.trade(str(p), after_s=s) for p, s in steps], percent="5")
    expected, window, now_s, begun_s = [], list[int](), 0, 0
    for price, after_s in steps:
        now_s += after_s
        if not window or now_s - begun_s > 60:
            window, begun_s = [price], now_s
        if price >= min(window) * 1.05 or price <= max(window) * 0.95:
            expected.append(str(price))
            window, begun_s = [price], now_s
        window.append(price)
    assert [one["price"] for one in memory.alerts] == expected
