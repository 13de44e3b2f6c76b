"""The conditions and texts of the alerts sample; another file tests its webhook."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.events import BookTicker, Gap
from bridge.errors import ConfigError
from consumers.handlers import alerts
from consumers.testing import EventFactory, StreamEntry, Trial

TRADES = "trade.SOL_USDC"


class Memory:
    """A webhook that records its alerts."""

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


def alerted(
    memory: Memory, given: list[StreamEntry], stream: str = TRADES, **options: str
) -> Trial:
    trial = Trial(alerts.Alerts, stream, **options)
    trial.deliver(*given)
    return trial


def prices(factory: EventFactory, *texts: str, after_s: float = 1) -> list[StreamEntry]:
    return [factory.trade(text, after_s=after_s) for text in texts]


def test_alerts_send_a_rise_from_the_lowest_price_of_the_window(memory: Memory) -> None:
    alerted(memory, prices(EventFactory(), "99.20", "99.00", "99.50", "99.99"))
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


def test_alerts_send_a_fall_from_the_highest_price_and_begin_a_new_window(
    memory: Memory,
) -> None:
    alerted(memory, prices(EventFactory(), "100", "101", "99.9", "99.5", "98.9"), percent="1")
    assert [one["text"] for one in memory.alerts] == [
        "SOL_USDC +1.00 % within 60 s: 100 → 101",
        "SOL_USDC -1.09 % within 60 s: 101 → 99.9",
        "SOL_USDC -1.00 % within 60 s: 99.9 → 98.9",
    ]


def test_alerts_send_nothing_for_a_move_slower_than_the_window(memory: Memory) -> None:
    alerted(memory, prices(EventFactory(), "100", "100.6", "101.2", after_s=70))
    assert memory.alerts == []


def test_alerts_compare_prices_as_numbers(memory: Memory) -> None:
    alerted(memory, prices(EventFactory(), "99.5", "100.00", "100.1", "99.6"))
    assert memory.alerts == []


def test_alerts_keep_their_window_after_a_takeover(memory: Memory) -> None:
    factory = EventFactory()
    trial = alerted(memory, prices(factory, "100", "99"), percent="2")
    trial.take_over()
    trial.deliver(*prices(factory, "101"))
    assert [one["from_price"] for one in memory.alerts] == ["99"]


def test_alerts_send_an_alert_again_under_the_same_key(memory: Memory) -> None:
    factory = EventFactory()
    trial = alerted(memory, prices(factory, "100"))
    trial.crash_after(*prices(factory, "105"))
    assert memory.keys == ["trade.SOL_USDC/1788367442000-20"] * 2


def test_alerts_send_a_gap_unless_it_is_recovered_or_the_streams_start(memory: Memory) -> None:
    factory = EventFactory()
    start = factory.event(Gap, to=0, cause="start")
    alerted(memory, [start, factory.trades_missing(3), factory.trades_missing(2, recovered=True)])
    assert [(one["kind"], one["text"]) for one in memory.alerts] == [
        ("gap", "trade.SOL_USDC: 1 to 3 are missing (skipped)")
    ]


def test_alerts_give_the_times_of_a_gap_without_numbers(memory: Memory) -> None:
    times = {"from_us": 1_788_367_440_000_000, "to_us": 1_788_367_445_500_000}
    gap = EventFactory().event(Gap, cause="disconnected", **times)
    alerted(memory, [gap], stream="bookTicker.SOL_USDC")
    assert memory.alerts[0]["text"] == (
        "bookTicker.SOL_USDC: events from 2026-09-02T16:44:00.000+00:00 to "
        "2026-09-02T16:44:05.500+00:00 may be missing (disconnected)"
    )


def test_alerts_send_nothing_for_other_events(memory: Memory) -> None:
    alerted(memory, [EventFactory().event(BookTicker)], stream="bookTicker.SOL_USDC")
    assert memory.alerts == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"percent": "0"}, "percent=0: write a number above 0"),
        ({"window_s": "soon"}, "window_s=soon"),
        ({"percent": "NaN"}, "percent=NaN"),
        ({"timeout_s": "20"}, "timeout_s=20: write less than 10"),
    ],
)
def test_alerts_refuse_options_out_of_range(
    memory: Memory, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        Trial(alerts.Alerts, TRADES, **options)


@pytest.mark.parametrize("url", ["", "hooks.example.com/secret", "ftp://x/secret", "https:///x"])
def test_alerts_refuse_a_bad_address_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("ALERTS_WEBHOOK_URL", url)
    with pytest.raises(ConfigError, match="ALERTS_WEBHOOK_URL: write") as caught:
        Trial(alerts.Alerts, TRADES)
    assert "secret" not in str(caught.value)


@given(st.lists(st.tuples(st.integers(90, 110), st.integers(1, 40)), max_size=25))
def test_alerts_equal_those_of_a_plain_reference(steps: list[tuple[int, int]]) -> None:
    memory = Memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alerts, "Webhook", lambda *_: memory)
        factory = EventFactory()
        alerted(memory, [factory.trade(str(p), after_s=s) for p, s in steps], percent="5")
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


def test_alerts_show_a_time_outside_the_calendar_unchanged(memory: Memory) -> None:
    lost = Gap(
        symbol="SOL_USDC", from_us=2**64 - 1, to_us=2**64 - 1, cause="stale", recovered=False,
        received_us=2**64 - 1,
    )  # fmt: skip
    alerted(memory, [StreamEntry("18446744073709551615-1", lost)])

    [alert] = memory.alerts
    assert alert["text"].startswith(f"{TRADES}: events from {2**64 - 1} µs to {2**64 - 1} µs")
    assert alert["happened_at"] == "9998-12-31T23:59:59.999+00:00"
