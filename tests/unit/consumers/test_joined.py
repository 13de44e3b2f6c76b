"""Joined streams with one state: order of their entries, and entries held back for it."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from bridge.errors import ConfigError
from consumers import Consumer, Delivery, Event, Results, StopWorker, Trade
from consumers.kit.api.consumer import ConsumerSpec, joined_by
from consumers.kit.handling.entry import Entry, entry_of
from consumers.kit.ordered import joined_streams
from consumers.kit.ordered.joined_streams import JoinedStreams
from consumers.kit.ordered.lease import Lease
from consumers.kit.worker.loading import load
from consumers.testing import EventFactory, Trial
from examples.spread import Spread
from tests.support.consumer_batches import stats
from tests.support.consumer_entries import START_US, trade

A, B, C = "trade.A", "trade.B", "trade.C"


class Both(Consumer):
    """Records its deliveries in order; price 13 raises an error, price 99 stops the worker."""

    name = "both"
    mode = "joined"
    streams = ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade], results: Results) -> None:
        number = delivery.event.trade_id
        if delivery.event.price == "13":
            raise ValueError("unlucky")
        if delivery.event.price == "99":
            raise StopWorker
        self.state["got"] = [*self.state.get("got", []), f"{delivery.stream[-1]}{number}"]
        results.xadd("got", "*", {"of": delivery.stream, "n": str(number)}, keep_entries=100)


class Clock:
    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(joined_streams, "time", clock)
    return clock


def joined(**cursors: str) -> JoinedStreams:
    at = {f"trade.{name}": position for name, position in cursors.items()}
    return JoinedStreams(Lease("joined.all", 1, "0-0"), at, ConsumerSpec(Both), stats(), "w")


def entries(*ids: str) -> list[Entry]:
    return [entry_of(one, trade(n, START_US)) for n, one in enumerate(ids)]


def ids(batch: Sequence[Entry]) -> list[str]:
    return [entry_id for entry_id, _ in batch]


def test_entries_of_two_streams_are_merged_by_the_time_in_their_ids(clock: Clock) -> None:
    one = joined(A="0-0", B="0-0")
    found = {A: entries("1-0", "5-0", "9-0"), B: entries("2-0", "3-0", "9-1")}
    assert ids(one.batch(found, 100)) == ["1-0", "2-0", "3-0", "5-0"]


def test_an_entry_waits_for_a_quiet_stream_no_longer_than_join_wait_s(clock: Clock) -> None:
    one = joined(A="0-0", B="0-0")
    found = {A: entries("1-0", "5-0")}
    assert one.batch(found, 100) == []
    clock.now_s += Both.join_wait_s * 0.9
    assert one.batch(found, 100) == []
    clock.now_s += Both.join_wait_s * 0.2
    assert ids(one.batch({A: entries("1-0", "5-0", "6-0")}, 100)) == ["1-0", "5-0"]


def test_an_entry_does_not_wait_if_each_stream_is_past_it(clock: Clock) -> None:
    one = joined(A="0-0", B="7-0")
    assert ids(one.batch({A: entries("1-0", "6-0", "7-0", "8-0")}, 100)) == ["1-0", "6-0"]


def test_entries_past_the_end_of_a_full_page_are_held(clock: Clock) -> None:
    one = joined(A="0-0", B="0-0")
    found = {A: entries("1-0", "2-0"), B: entries("5-0")}
    assert ids(one.batch(found, 2)) == ["1-0"]
    clock.now_s += 10
    assert ids(one.batch(found, 2)) == ["1-0", "2-0"]  # A's next page may precede 5-0


def test_within_a_millisecond_the_engines_time_decides(clock: Clock) -> None:
    one = joined(A="0-0", B="0-0")
    early, late = trade(1, START_US + 1), trade(2, START_US + 2)
    found = {
        A: [entry_of("5-0", late), entry_of("6-0", late)],
        B: [entry_of("5-0", early), entry_of("6-0", late)],
    }
    batch = one.batch(found, 100)
    assert [(entry.stream, entry[0]) for entry in batch] == [(B, "5-0"), (A, "5-0")]  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(20))
def test_portions_of_any_size_give_the_order_of_the_whole(clock: Clock, seed: int) -> None:
    chance = Random(seed)
    names = [A, B, C]
    whole = {name: sorted({chance.randrange(1, 200) for _ in range(30)}) for name in names}
    one = joined(A="0-0", B="0-0", C="0-0")
    got: list[tuple[int, str]] = []
    while len(got) < sum(map(len, whole.values())):
        size = chance.randrange(1, 6)
        found: dict[str, Sequence[Entry]] = {}
        for name in names:
            at = int(one.cursors[name].partition("-")[0])
            if rest := [ms for ms in whole[name] if ms > at][:size]:
                found[name] = entries(*(f"{ms}-0" for ms in rest))
        batch = one.batch(found, size)
        clock.now_s += 0.1
        got += [(int(entry[0][:-2]), entry.stream) for entry in batch]  # type: ignore[attr-defined]
        one._move(one._commit_of(batch, ()))
    assert got == sorted(got)


def test_a_commit_moves_the_streams_that_had_entries_and_counts_them(clock: Clock) -> None:
    one = joined(A="0-0", B="4-0")
    commit = one._commit_of(one.batch({A: entries("1-0", "2-0", "9-0")}, 100), ())
    assert commit.moves == ((A, "2-0", 2),)
    assert commit.handled == 2
    assert one._commit_of((), ()).moves == ((A, "0-0", 0),)


def market(symbol: str, **start: Any) -> EventFactory:
    return EventFactory(symbol, **start)


def test_a_trial_joins_streams_by_their_times_and_keeps_one_state() -> None:
    a, b = market("A"), market("B")
    trial = Trial(Both, A, B)
    given = [a.trade("1"), a.trade("1", after_s=5), b.trade("1", after_s=1), b.trade("1")]
    trial.deliver(*given, at_once=3)
    assert [row["of"] for _, row in trial.entries("got")] == [A, B, B, A]
    assert trial.consumer.state["got"] == ["A1", "B1", "B2", "A2"]
    assert trial.consumer.stream == "all"


def test_a_joined_consumer_is_exact_when_its_worker_dies_in_the_middle() -> None:
    a, b = market("A"), market("B")
    trial = Trial(Both, A, B)
    trial.deliver(a.trade("1"))
    trial.crash_after(b.trade("1"), a.trade("1", after_s=3))
    trial.deliver(b.trade("1", after_s=9))
    assert trial.consumer.state["got"] == ["A1", "B1", "A2", "B2"]
    assert len(trial.entries("got")) == 4


def test_a_joined_entry_that_fails_is_tried_again_with_the_same_state() -> None:
    a, b = market("A"), market("B")
    trial = Trial(Both, A, B)
    with pytest.raises(ValueError, match="unlucky"):
        trial.deliver(a.trade("1"), b.trade("13"))
    assert trial.entries("got") == []


def test_spread_is_computed_from_prices_of_the_same_time() -> None:
    spot, perpetual = market("SOL_USDC"), market("SOL_USDC_PERP")
    trial = Trial(Spread, "bookTicker.SOL_USDC", "bookTicker.SOL_USDC_PERP")
    trial.deliver(
        spot.book_ticker(bid=("99.00", "1"), ask=("99.10", "1")),
        spot.book_ticker(bid=("99.50", "1"), ask=("99.60", "1"), after_s=10),
        perpetual.book_ticker(bid=("99.10", "1"), ask=("99.20", "1"), after_s=2),
        perpetual.book_ticker(bid=("99.70", "1"), ask=("99.80", "1"), after_s=20),
    )
    assert [row["spread"] for _, row in trial.entries("values")] == ["0.10", "-0.40", "0.20"]
    assert trial.key() == "consumers:{joined.SOL}:spread"


class Parted(Both):
    def joined_by(self, stream: str) -> str:
        return stream


class Unnamed(Both):
    def joined_by(self, stream: str) -> str:
        return "a b"


class Setting(Both):
    on_failure = "dead_letter"


def test_a_consumer_that_cannot_be_joined_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="joined_by parts these streams"):
        Trial(Parted, A, B)
    with pytest.raises(ConfigError, match="gives 'a b': return up to 64 letters"):
        joined_by(Unnamed(), A)
    with pytest.raises(ConfigError, match="a joined consumer makes no dead letters"):
        load(f"{__name__}:Setting")


def test_a_trial_refuses_an_event_that_fits_none_of_its_streams() -> None:
    trial = Trial(Both, A, B)
    with pytest.raises(ValueError, match="trade of 'X' fits 0 streams of this trial"):
        trial.deliver(market("X").trade("1"))


def test_on_event_of_a_joined_consumer_shows_which_stream() -> None:
    class Streams(Both):
        def on_event(self, delivery: Delivery[Event]) -> None:
            self.state["last"] = delivery.stream

    ticker = "bookTicker.A"
    trial = Trial(Streams, A, ticker)
    trial.deliver(market("A").book_ticker(bid=("1", "1"), ask=("2", "1")))
    assert trial.consumer.state["last"] == ticker
