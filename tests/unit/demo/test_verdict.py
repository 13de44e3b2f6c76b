"""The failures and the summary of a demo run, from literal view models."""

from typing import Any

import pytest

from bridge.view.facts import BridgeStatus, ConnectionStatus, StreamStatus, WorkerStatus
from bridge.view.view_model import BridgeRow, ConsumerRow, State, StreamRow, ViewModel
from demo.plan import CONSUMERS, NEVER_QUIET
from demo.truth import Tally
from demo.verdict import Run, failures, summary

UP = BridgeStatus(
    instance="demo", updated_us=0, connections=(ConnectionStatus(connected=True, wanted=1),)
)


def stream(kind: str, entries: int = 10, **given: Any) -> StreamRow:
    whole: dict[str, Any] = {"marks": (), "is_failing": False} | given
    row = {"rate": 1.0, "age_us": 0, "text": "", "status": StreamStatus()}
    return StreamRow(name=f"{kind}.SOL_USDC", entries=entries, **(row | whole))


def consumer(group: str, state: State = State.UP, **given: Any) -> ConsumerRow:
    facts = {"group": group, "consumer": "demo", "updated_us": 0, "handled": 5} | given
    status = WorkerStatus.model_validate(facts)
    return ConsumerRow(f"{group}/demo", status, state, 9_000_000)


def view_model(**given: Any) -> ViewModel:
    whole: dict[str, Any] = {
        "now_us": 0,
        "bridges": (BridgeRow(UP, State.UP, 0, ()),),
        "streams": tuple(stream(kind) for kind in NEVER_QUIET),
        "consumers": tuple(consumer(name) for name in CONSUMERS),
        "quarantined": 0,
        "newest_quarantined": "",
        "receive_ms": (0.8, 3.1),
        "curve": (),
        "unreadable": 0,
    }
    return ViewModel(**(whole | given))


def test_a_run_with_statuses_of_all_parts_has_no_failure() -> None:
    assert failures(Run(view_model(), 8.0)) == []


def others(kind: str) -> tuple[StreamRow, ...]:
    return tuple(stream(one) for one in NEVER_QUIET if one != kind)


def rest(name: str, *more: ConsumerRow) -> tuple[ConsumerRow, ...]:
    return (*(consumer(one) for one in CONSUMERS if one != name), *more)


@pytest.mark.parametrize(
    ("given", "failure"),
    [
        ({"bridges": ()}, "the bridge never reported its status"),
        ({"bridges": (BridgeRow(UP, State.SILENT, 0, ()),)}, "the bridge was silent"),
        ({"bridges": (BridgeRow(UP, State.UP, 0, ("no exchange",)),)}, "no exchange"),
        (
            {"quarantined": 2, "newest_quarantined": "REFUSED x"},
            "2 messages were refused: REFUSED x",
        ),
        ({"streams": others("trade")}, "nothing was published to any trade stream"),
        (
            {"streams": (*others("trade"), stream("trade", 0))},
            "nothing was published to any trade stream",
        ),
        (
            {
                "streams": (
                    *others("trade"),
                    stream("trade", is_failing=True, marks=("suspended: full",)),
                )
            },
            "trade.SOL_USDC: suspended: full",
        ),
        ({"consumers": rest("book")}, "the consumer book never reported its status"),
        (
            {"consumers": rest("book", consumer("book", State.SILENT))},
            "the consumer book fell silent",
        ),
        (
            {"consumers": rest("book", consumer("book", handled=0))},
            "the consumer book handled nothing",
        ),
        (
            {"consumers": rest("book", consumer("book", failed=1, undecodable=2))},
            "the consumer book failed on 3 entries",
        ),
    ],
)
def test_each_failure_of_a_run_is_a_sentence(given: dict[str, Any], failure: str) -> None:
    assert failures(Run(view_model(**given), 8.0)) == [failure]


@pytest.mark.parametrize(
    ("tally", "wrong"),
    [
        (Tally(judged=9, recovered=3, marked=1), []),
        (Tally(judged=9, lost=1), ["the exchange says 9 trades: 1 lost, 0 doubled, 0 recovered"]),
        (
            Tally(judged=9, doubled=1),
            ["the exchange says 9 trades: 0 lost, 1 doubled, 0 recovered"],
        ),
    ],
)
def test_a_trade_that_is_lost_or_duplicated_is_a_failure(tally: Tally, wrong: list[str]) -> None:
    assert failures(Run(view_model(), 8.0, tally)) == wrong


def test_the_summary_compares_the_trades_with_the_exchanges_ledger() -> None:
    tally = Tally(judged=1200, recovered=3)
    assert "  the exchange says 1,200 trades: 0 lost, 0 doubled, 3 recovered" in summary(
        Run(view_model(), 8.0, tally)
    )


def test_without_a_last_view_model_the_run_has_failed() -> None:
    run = Run(None, 8.0)
    assert failures(run) == ["Redis could not be read, so nothing is known of what was published"]
    assert list(summary(run)) == []


def test_the_summary_adds_up_streams_of_a_type() -> None:
    streams = (
        stream("trade", 30),
        stream("trade", 10, status=StreamStatus.model_validate({"gaps": 2})),
    )
    lines = list(summary(Run(view_model(streams=streams), 8.0)))
    assert lines[0] == "In 8 s: 40 entries, 5.0 a second"
    assert "  trade                          2        40      5.0     2" in lines
    assert "  quarantined: 0" in lines
    assert "  book/demo: 5 handled" in lines
