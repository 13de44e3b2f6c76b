"""The judge of a run reports each flaw that the tests add to a good run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fakeredis
import pytest

from tests.support import truth
from tests.support.exchange_coverage import Connections, covers
from tests.support.exchange_ledger import ExchangeLedger, Line
from tests.support.outage_judge import Judge

TRADES, DEPTH, TICKER = "trade.SOL_USDC", "depth.SOL_USDC", "ticker.SOL_USDC"
STREAMS = (TRADES, DEPTH, TICKER)
SECOND_US = 1_000_000
START_US = 1_790_000_000 * SECOND_US
END_US = START_US + 60 * SECOND_US


def at(second: float) -> int:
    return START_US + int(second * SECOND_US)


def trade(number: int, second: float) -> dict[str, Any]:
    return {
        "E": at(second) + 400, "T": at(second), "a": "1", "b": "2", "e": "trade", "m": False,
        "p": "98.90", "q": "1.50", "s": "SOL_USDC", "t": number,
    }  # fmt: skip


def depth(number: int, second: float) -> dict[str, Any]:
    return {
        "E": at(second) + 300, "T": at(second), "U": number, "a": [["99.10", f"{number}.00"]],
        "b": [], "e": "depth", "s": "SOL_USDC", "u": number,
    }  # fmt: skip


def ticker(second: float) -> dict[str, Any]:
    return {
        "E": at(second), "V": "1", "c": "2", "e": "ticker", "h": "3", "l": "4", "n": 5, "o": "6",
        "s": "SOL_USDC", "v": "7",
    }  # fmt: skip


def frame(stream: str, data: Mapping[str, Any], to: list[int], **more: Any) -> dict[str, Any]:
    line = {"at_us": data["E"], "sent": len(to), "to": to, **more}
    return {**line, "frame": {"data": data, "stream": stream}}


def lines() -> list[dict[str, Any]]:
    """A ledger: connection 1 until second 30, connection 2 from second 32; trade 4 was dropped,
    number 5 was skipped.
    """
    made: list[dict[str, Any]] = [
        {"seed": 1, "start_us": START_US, "markets": ["SOL_USDC"]},
        {"at_us": START_US, "book": "SOL_USDC", "u": 10, "bids": [["98", "1"]], "asks": []},
    ]
    for number, second in ((1, 1.0), (2, 32.0)):
        made.append({"at_us": at(second), "connection": number, "state": "opened"})
        made += [
            {"at_us": at(second), "connection": number, "subscribed": name} for name in STREAMS
        ]
    made.append({"at_us": at(30), "connection": 1, "state": "reset"})
    made.append({"at_us": at(6), "skipped": TRADES, "from": 5, "to": 5, "by": [2]})
    made += [
        frame(TRADES, trade(number, second), [1])
        for number, second in ((1, 2), (2, 3), (3, 4), (6, 7), (7, 8))
    ]
    made.append(frame(TRADES, trade(4, 5), [], kept_from=[1], later=[], by=[1]))
    made += [frame(TRADES, trade(8, 31), []), frame(TRADES, trade(9, 40), [2])]
    made += [frame(DEPTH, depth(number, number), [1]) for number in range(11, 16)]
    made += [frame(DEPTH, depth(16, 31), []), frame(DEPTH, depth(17, 40), [2])]
    made += [frame(TICKER, ticker(second), [1]) for second in (10, 11, 12, 13)]
    made += [frame(TICKER, ticker(31), []), frame(TICKER, ticker(40), [2])]
    return sorted(made[2:], key=lambda line: int(line["at_us"])) + made[:2]


def message(stream: str, data: Mapping[str, Any]) -> dict[str, str]:
    return {**truth.expected_fields(stream, data), "received_us": "1", "extra": ""}


def gap(**fields: object) -> dict[str, str]:
    empty = {"from": "", "to": "", "from_us": "", "to_us": "", "cause": "connection lost"}
    return {"type": "gap", **empty, **{name: str(value) for name, value in fields.items()}}


def snapshot(number: int, asks: list[list[str]]) -> dict[str, str]:
    sides = {"bids": json.dumps([["98", "1"]]), "asks": json.dumps(asks)}
    return {"type": "depth_snapshot", "update_id": str(number), **sides}


Entries = dict[str, list[dict[str, str]]]


def good() -> Entries:
    from_history = {**message(TRADES, trade(4, 5)), "source": "rest", "price": "98.9"}
    return {
        TRADES: [
            gap(cause="start"),
            *[message(TRADES, trade(n, s)) for n, s in ((1, 2), (2, 3), (3, 4))],
            {**from_history, "quantity": "1.5", "engine_us": str(at(5))},
            *[message(TRADES, trade(n, s)) for n, s in ((6, 7), (7, 8))],
            gap(**{"from": 8, "to": 8}),
            message(TRADES, trade(9, 40)),
        ],
        DEPTH: [
            gap(cause="start"),
            *[message(DEPTH, depth(n, n)) for n in (11, 12)],
            snapshot(12, [["99.1", "12"]]),
            *[message(DEPTH, depth(n, n)) for n in (13, 14, 15)],
            gap(**{"from": 16, "to": 16}),
            message(DEPTH, depth(17, 40)),
            snapshot(17, [["99.1", "17"]]),
        ],
        TICKER: [
            *[message(TICKER, ticker(second)) for second in (10, 11, 12, 13)],
            gap(from_us=at(29), to_us=at(32)),
            message(TICKER, ticker(40)),
        ],
    }


def judged(folder: Path, entries: Entries, *, until_us: int = END_US) -> tuple[list[str], Judge]:
    path = folder / "ledger.jsonl"
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines()))
    client = fakeredis.FakeRedis(decode_responses=True)
    for stream, stored in entries.items():
        for place, fields in enumerate(stored, 1):
            client.xadd(stream, {**fields}, id=f"{place}-0")
    judge = Judge(ExchangeLedger(path), client, since_us=at(9), until_us=until_us)
    return judge.flaws(list(entries)), judge


def test_a_good_run_has_no_flaw(tmp_path: Path) -> None:
    flaws, judge = judged(tmp_path, good())
    assert flaws == []
    assert (judge.from_history, judge.snapshots) == (1, 2)
    assert judge.gaps["trade", "connection lost"] == 1
    assert 8 < judge.dead_s["trade"] < 10  # from the events at 31 s to those at 40 s


def test_a_gap_that_the_end_of_the_run_made_is_not_judged(tmp_path: Path) -> None:
    end = gap(from_us=at(10.4), to_us=at(12))  # connection 1 received this interval
    entries = {TICKER: [message(TICKER, ticker(10)), end]}

    assert judged(tmp_path, entries, until_us=at(10.4))[0] == []
    [flaw] = judged(tmp_path, entries, until_us=at(10.5))[0]
    assert "it was received all along" in flaw


def test_a_stream_that_is_dead_for_too_long_is_a_flaw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.outage_judge.DEAD_LIMIT_S", {"ticker": 8.0})
    flaws, _ = judged(tmp_path, good())
    assert [flaw.split(",")[0] for flaw in flaws] == [f"{TICKER}: was dead for 9.0 s"]


def take_out(stream: str, place: int) -> Callable[[Entries], None]:
    def flaw(entries: Entries) -> None:
        del entries[stream][place]

    return flaw


def put_in(stream: str, place: int, fields: dict[str, str]) -> Callable[[Entries], None]:
    def flaw(entries: Entries) -> None:
        entries[stream].insert(place, fields)

    return flaw


def change(stream: str, place: int, **fields: str) -> Callable[[Entries], None]:
    def flaw(entries: Entries) -> None:
        entries[stream][place].update(fields)

    return flaw


@pytest.mark.parametrize(
    ("flaw", "expected"),
    [
        (take_out(TRADES, 2), "is 3, after 1, and no gap says so"),
        (take_out(TRADES, 4), "is 6, after 3, and no gap says so"),
        (take_out(TRADES, 7), "is 9, after 7, and no gap says so"),
        (take_out(TRADES, 8), "ends at 8, the exchange was at 9"),
        (put_in(TRADES, 3, message(TRADES, trade(2, 3))), "is 2, after 2"),
        (change(TRADES, 3, price="99.00"), "price is '99.00'"),
        (change(TRADES, 4, quantity="1"), "quantity is 1, the trade's is 1.5"),
        (change(TRADES, 7, **{"from": "9"}), "a gap begins at 9, the position is 7"),
        (put_in(TRADES, 9, gap(**{"from": 10, "to": 12})), "names numbers that never were"),
        (put_in(TRADES, 8, message(TRADES, trade(99, 9))), "is 99, which the exchange never sent"),
        (put_in(TRADES, 5, gap()), "a gap without a beginning"),
        (take_out(DEPTH, 5), "is 15, after 13, and no gap says so"),
        (take_out(DEPTH, 7), "is 17, after 15, and no gap says so"),
        (change(DEPTH, 3, asks='[["99.1","11"]]'), "asks at 12 differ from the exchange's at 12"),
        (change(DEPTH, 9, bids="[]"), "bids at 17 differ from the exchange's at 17"),
        (take_out(DEPTH, 9), "ends without a book"),
        (take_out(TICKER, 1), "is missing, and no gap says so"),
        (take_out(TICKER, 4), "is missing, and no gap says so"),
        (put_in(TICKER, 1, message(TICKER, ticker(10))), "is there 2 times"),
        (change(TICKER, 4, from_us=str(at(9)), to_us=str(at(13))), "it was received all along"),
        (change(TICKER, 4, from_us=str(at(9)), to_us=str(at(32))), "it was received for 3.0 s"),
    ],
)
def test_each_flaw_is_reported(
    flaw: Callable[[Entries], None], expected: str, tmp_path: Path
) -> None:
    entries = good()
    flaw(entries)
    assert any(expected in each for each in judged(tmp_path, entries)[0])


def test_a_gap_over_messages_sent_to_an_open_connection_is_a_false_alarm(
    tmp_path: Path,
) -> None:
    entries = good()
    entries[TRADES][1:4] = [message(TRADES, trade(1, 2)), gap(**{"from": 2, "to": 3})]
    (flaw,) = judged(tmp_path, entries)[0]
    assert "a gap (connection lost) from 2 to 3 names 2, which was sent to [1]" in flaw


def test_losses_with_a_connection_are_limited_to_its_last_moment_or_a_long_queue() -> None:
    slow = {"number": 7, "command": {"fault": "slow_network", "connection": 2}}
    connections = Connections(
        [
            {"at_us": at(10), "connection": 1, "state": "opened"},
            {"at_us": at(10), "connection": 2, "state": "opened"},
            {"at_us": at(20), "fault": slow, "state": "began"},
            {"at_us": at(22), "fault": slow, "state": "ended"},
            {"at_us": at(25), "connection": 1, "state": "reset"},
            {"at_us": at(25), "connection": 2, "state": "reset"},
        ]
    )
    assert connections.may_be_lost(1, at(24))
    assert not connections.may_be_lost(1, at(23))
    assert connections.may_be_lost(2, at(21))
    assert not connections.may_be_lost(2, at(24 - 10))


def test_coverage_is_the_time_subscribed_and_not_stalled() -> None:
    stall = {"number": 7, "command": {"fault": "stall", "connection": "open"}}
    connections = Connections(
        [
            {"at_us": at(10), "connection": 1, "state": "opened"},
            {"at_us": at(20), "connection": 1, "subscribed": TICKER},
            {"at_us": at(30), "fault": stall, "state": "began"},
            {"at_us": at(35), "connection": 2, "state": "opened"},
            {"at_us": at(38), "connection": 2, "subscribed": TICKER},
            {"at_us": at(40), "fault": stall, "state": "ended"},
            {"at_us": at(60), "connection": 1, "state": "reset"},
            {"at_us": at(70), "connection": 2, "unsubscribed": TICKER},
            {"at_us": at(75), "connection": 3, "state": "opened"},
            {"at_us": at(76), "connection": 3, "subscribed": TICKER},
            {"at_us": at(80), "connection": 3, "state": "reset"},
        ]
    )
    covered = connections.covered(TICKER)
    assert covered == [(at(20), at(28.5)), (at(38), at(70)), (at(76), at(78.5))]
    assert connections.covered(TRADES) == []
    assert covers(covered, at(40), at(70))
    assert not covers(covered, at(25), at(45))
    assert not covers(covered, at(10), at(15))


def test_a_state_in_the_queue_of_a_slow_connection_may_be_overtaken_on_a_newer_one() -> None:
    slow = {"number": 1, "command": {"fault": "slow_network", "connection": "open"}}
    notes: list[dict[str, Any]] = [
        {"at_us": at(0), "connection": 1, "state": "opened"},
        {"at_us": at(0), "connection": 1, "subscribed": TICKER},
        {"at_us": at(10), "fault": slow, "state": "began"},
        {"at_us": at(11), "fault": slow, "state": "ended"},
        {"at_us": at(12), "connection": 2, "state": "opened"},
        {"at_us": at(12), "connection": 2, "subscribed": TICKER},
    ]
    connections = Connections(notes)

    def sent(second: float, to: list[int]) -> Line:
        return Line(at(second), to, [], ticker(second))

    assert connections.may_be_overtaken(TICKER, sent(10.5, [1]))
    assert not connections.may_be_overtaken(TICKER, sent(9, [1]))  # connection 1 was not slow yet
    assert not connections.may_be_overtaken(TICKER, sent(10.5, []))  # sent to no connection
    # no other connection receives the trades
    assert not connections.may_be_overtaken(TRADES, sent(10.5, [1]))
