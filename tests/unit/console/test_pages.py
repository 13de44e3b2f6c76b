"""The content of the console's pages, from literal view models, entries and groups."""

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from bridge.console import latency
from bridge.console.gaps import GapsPage
from bridge.console.groups import ConsumersPage, with_dead_letters
from bridge.console.kit import GroupLag, StoredDeadLetter, StreamLag, Worker
from bridge.console.latency import COLUMN_US, LatencyPage
from bridge.console.now import SLOT_US, NowPage, unavailable
from bridge.console.privacy import public
from bridge.view.facts import BridgeStatus, ConnectionStatus, Sample, StreamFacts, WorkerStatus
from bridge.view.history import History
from bridge.view.view_model import ViewModel, draw

NOW_US = 1_700_000_000_000_000
SECOND = 1_000_000
CONNECTED = (ConnectionStatus(name="public-1", connected=True, wanted=1, confirmed=1),)
TRADE = {"type": "trade", "received_us": str(NOW_US), "engine_us": str(NOW_US - 4000)}


def sample(at_us: int = NOW_US, **streams: StreamFacts) -> Sample:
    bridge = BridgeStatus(
        instance="b", updated_us=at_us, started_us=NOW_US - 60 * SECOND, connections=CONNECTED
    )
    named = {name.replace("__", "."): facts for name, facts in streams.items()}
    return Sample(at_us, bridges=(bridge,), streams=named)


def facts(added: int, **last: str) -> StreamFacts:
    return StreamFacts(length=added, added=added, last_id=f"1-{added}", last=TRADE | last)


def view_models(*samples: Sample) -> list[ViewModel]:
    history, drawn = History(), []
    for one in samples:
        history.add(one)
        drawn.append(draw(history))
    return drawn


def record(entry: int, stream: str = "trade.SOL_USDC", **given: str) -> tuple[str, dict[str, str]]:
    fields = {
        "type": "gap_record", "symbol": "SOL_USDC", "stream": stream, "from": "3", "to": "6",
        "from_us": "", "to_us": "", "cause": "skipped", "recovered": "true", "how": "history",
        "occurrence": "", "event_us": "", "engine_us": "", "received_us": str(NOW_US), "extra": "",
    }  # fmt: skip
    return f"{entry}-0", fields | given


# Now


def test_now_shows_only_changed_and_removed_rows() -> None:
    first, second = view_models(
        sample(trade__A_B=facts(10), trade__C_D=facts(1), trade__E_F=facts(1)),
        sample(NOW_US + SECOND, trade__A_B=facts(12), trade__C_D=facts(1)),
    )
    page = NowPage("redis://here")
    page.take(first)
    page.take(second)
    sent = page.take(second)
    assert sent["rows"] == {}
    again = NowPage("redis://here")
    again.take(first)
    sent = again.take(second)
    assert sent["rows"]["trade.A_B"][:3] == [2.0, NOW_US, 12]
    assert sent["removed"] == ["trade.E_F"]


def test_a_quiet_stream_is_not_reported_again_each_second() -> None:
    samples = [sample(NOW_US + i * SECOND, trade__A_B=facts(7)) for i in range(3)]
    page = NowPage("redis://here")
    sent = [page.take(view_model) for view_model in view_models(*samples)]
    assert "trade.A_B" in sent[1]["rows"]  # the second poll is the first with a rate
    assert sent[2]["rows"] == {}


def test_a_sparkline_has_a_point_for_each_slot_also_of_late_polls() -> None:
    samples = [sample(NOW_US + i * SLOT_US, trade__A_B=facts(7 + i)) for i in (0, 1, 4)]
    page = NowPage("redis://here")
    for view_model in view_models(*samples):
        page.take(view_model)
    assert page.whole()["sparks"]["trade.A_B"] == [0.0, 0.5, 0.5, 0.5, 0.5]


def test_the_whole_page_is_json_and_names_redis_and_verdict() -> None:
    [view_model] = view_models(sample(trade__A_B=facts(7)))
    page = NowPage("redis://here")
    page.take(view_model)
    whole = json.loads(json.dumps(page.whole()))
    assert (whole["redis"], whole["verdict"]["text"]) == ("redis://here", "All is well")
    assert unavailable("refused")["level"] == "bad"


# Privacy


def worker(group: str, *patterns: str, made: str = "3 positions") -> WorkerStatus:
    return WorkerStatus(group=group, consumer="w", updated_us=NOW_US, patterns=patterns, made=made)


def test_data_of_the_account_is_left_out() -> None:
    taken = Sample(
        NOW_US,
        bridges=(
            BridgeStatus.model_validate(
                {
                    "instance": "b",
                    "updated_us": 1,
                    "streams": {"account.orderUpdate": {}, "trade.A_B": {}},
                }
            ),
        ),
        workers=(
            worker("orders", "account.*"),
            worker("tail", "*"),
            worker("candles", "trade.*"),
        ),
        streams={"account.orderUpdate": facts(1), "trade.A_B": facts(1)},
        quarantine=StreamFacts(
            length=1, last={"stream": "account.orderUpdate", "reason": "secret"}
        ),
    )
    shown = public(taken)
    assert list(shown.streams) == ["trade.A_B"]
    assert list(shown.bridges[0].streams) == ["trade.A_B"]
    assert {one.group: one.made for one in shown.workers} == {"tail": "", "candles": "3 positions"}
    assert (shown.quarantine.length, shown.quarantine.last) == (1, None)


def test_a_quarantined_message_of_an_unknown_stream_is_treated_as_private() -> None:
    taken = Sample(
        NOW_US, quarantine=StreamFacts(length=1, last={"stream": "", "reason": "no JSON"})
    )
    assert public(taken).quarantine.last is None


# Gaps


def test_a_gap_record_of_numbers_shows_their_count_and_recovery() -> None:
    [row] = GapsPage().take([record(1)])
    assert (row["missing"], row["recovered"], row["cause"]) == (4, True, "skipped")
    assert row["from_us"] == row["to_us"] == NOW_US


def test_a_gap_record_of_times_shows_its_interval() -> None:
    given = {"from": "", "to": "", "from_us": str(NOW_US - 9), "to_us": str(NOW_US - 2)}
    [row] = GapsPage().take([record(1, "ticker.A_B", recovered="false", how="", **given)])
    assert (row["missing"], row["from_us"], row["to_us"]) == (None, NOW_US - 9, NOW_US - 2)


def test_gap_records_of_the_account_are_shown_on_request_and_unreadable_ones_counted() -> None:
    entries = [record(1, "account.orderUpdate"), ("2-0", {"type": "gap_record"}), record(3)]
    page, private = GapsPage(), GapsPage(shows_private=True)
    assert [one["id"] for one in page.take(entries)] == ["3-0"]
    assert [one["id"] for one in private.take(entries)] == ["1-0", "3-0"]
    assert (page.unreadable, page.last_id) == (1, "3-0")


# Consumers


def lag(stream: str, **given: Any) -> StreamLag:
    whole: dict[str, Any] = {
        "position": "1-0", "lag": 2, "precision": "exact", "behind_s": 1.5, "pending": 0,
        "oldest_pending_s": 0.0, "owner": "w", "dead": 0, "missed": 0, "blocked_at": "",
    }  # fmt: skip
    return StreamLag(stream, **(whole | given))


def group(name: str, *streams: StreamLag) -> GroupLag:
    alive = Worker("w", 0.5, 10, 0, 0, 0, 0, 3.0, 1)
    return GroupLag(name, "ordered", streams, (alive,))


def test_a_group_shows_its_lag_over_time_and_the_account_is_left_out() -> None:
    groups = [
        group("candles", lag("trade.A_B"), lag("trade.C_D", behind_s=4.0)),
        group("orders", lag("account.orderUpdate")),
        group("tail", lag("account.orderUpdate", lag=90), lag("trade.A_B")),
    ]
    page = ConsumersPage()
    sent = page.take(NOW_US, groups, [])
    assert {one["group"]: one["lag"] for one in sent["groups"]} == {"candles": 4, "tail": 2}
    assert sent["points"][0]["groups"]["candles"] == [4.0, 4]
    assert sent["groups"][0]["workers"][0]["is_alive"]
    assert page.whole()["points"] == sent["points"]


def test_dead_letters_are_read_of_streams_that_have_some_and_may_be_shown() -> None:
    groups = [
        group("g", lag("trade.A_B", dead=1), lag("trade.C_D"), lag("account.orderUpdate", dead=2))
    ]
    assert with_dead_letters(groups, shows_private=False) == {"g": ["trade.A_B"]}
    assert with_dead_letters(groups, shows_private=True) == {
        "g": ["trade.A_B", "account.orderUpdate"]
    }


def test_a_dead_letter_may_be_requested_where_its_stream_is_on_the_page() -> None:
    groups = [group("g", lag("trade.A_B"), lag("account.orderUpdate")), group("h", lag("depth.A"))]
    public_page, private_page = ConsumersPage(), ConsumersPage(shows_private=True)
    for page in (public_page, private_page):
        page.take(NOW_US, groups, [])

    assert public_page.shows("g", "trade.A_B")
    assert not public_page.shows("g", "account.orderUpdate")
    assert not public_page.shows("g", "depth.A")
    assert private_page.shows("g", "account.orderUpdate")


def test_a_dead_letter_of_another_program_is_shown_with_escapes() -> None:
    stored = StoredDeadLetter("g", "trade.A_B", "1700000000000-0", {"error": "no\x1b[31m\nway"})
    [row] = ConsumersPage().take(NOW_US, [], [stored])["letters"]
    assert row["error"] == r"no\u001b[31m\nway"
    assert (row["attempts"], row["since_us"]) == ("", NOW_US)


# Latency


def counting(at_us: int, received: list[int], started_us: int = 1) -> Sample:
    """A sample with one bridge whose first latency buckets have these counts."""
    counts = received + [0] * (len(latency.BOUNDS_MS) + 1 - len(received))
    status = {"instance": "b", "updated_us": at_us, "started_us": started_us}
    latencies = {"engine_to_received": {"trade": {"counts": counts}, "depth": {"counts": counts}}}
    return Sample(at_us, bridges=(BridgeStatus.model_validate(status | {"latencies": latencies}),))


def test_a_column_has_the_bridges_counts_since_the_previous_column() -> None:
    page = LatencyPage()
    page.take(counting(NOW_US, [5, 5]))  # baseline: the period of these counts is unknown
    assert page.take(counting(NOW_US + 1, [5, 7])) is None  # the column's period is not over
    sent = page.take(counting(NOW_US + COLUMN_US, [6, 7]))
    assert sent is not None
    assert sent["column"]["engine_to_received"][:3] == [2, 4, 0]
    assert sum(sent["column"]["received_to_written"]) == 0
    assert sent["figures"]["engine_to_received"] == {"p50": 2.5, "p90": 2.5, "p99": 2.5, "count": 6}


def test_a_column_has_the_workers_counts_since_the_previous_column() -> None:
    def workers_at(at_us: int, *workers: tuple[str, int]) -> Sample:
        statuses = []
        for name, handled in workers:
            counts = [handled] + [0] * len(latency.BOUNDS_MS)
            status = {"group": "g", "consumer": name, "updated_us": at_us, "started_us": 1}
            statuses.append(WorkerStatus.model_validate(status | {"latencies": {"counts": counts}}))
        return Sample(at_us, workers=tuple(statuses))

    page = LatencyPage()
    page.take(workers_at(NOW_US, ("a", 5)))
    sent = page.take(workers_at(NOW_US + COLUMN_US, ("a", 8), ("b", 90)))  # b: baseline
    assert sent is not None
    assert sent["column"]["received_to_handled"][0] == 3
    assert sent["figures"]["received_to_handled"]["p50"] == 1.0


def test_a_restarted_bridge_counts_from_zero() -> None:
    page = LatencyPage()
    page.take(counting(NOW_US, [9, 9]))
    sent = page.take(counting(NOW_US + COLUMN_US, [1, 0], started_us=2))
    assert sent is not None
    assert sum(sent["column"]["engine_to_received"]) == 0


def test_a_latency_above_all_bounds_has_no_figure_and_unknown_buckets_are_skipped() -> None:
    page = LatencyPage()
    page.take(counting(NOW_US, []))
    page.take(counting(NOW_US + COLUMN_US, [0] * len(latency.BOUNDS_MS) + [1]))
    assert page.whole()["figures"]["engine_to_received"]["p50"] is None
    other = {"engine_to_received": {"trade": {"counts": [1, 2, 3]}}}
    status = BridgeStatus.model_validate(
        {"instance": "b", "updated_us": 1, "started_us": 1, "latencies": other}
    )
    LatencyPage().take(Sample(NOW_US, bridges=(status,)))


def test_a_group_is_as_slow_as_its_slowest_live_worker() -> None:
    def one(consumer: str, p50: float | None, at_us: int = NOW_US) -> WorkerStatus:
        return WorkerStatus.model_validate(
            {"group": "g", "consumer": consumer, "updated_us": at_us,
             "latency_ms": {"p50": p50, "p99": None if p50 is None else p50 * 10}}
        )  # fmt: skip

    workers = [one("a", 2.0), one("b", 3.0), one("c", None), one("gone", 99.0, NOW_US - 9 * SECOND)]
    assert latency.handled_by_group(workers, NOW_US) == {"g": [3.0, 30.0]}


@pytest.mark.parametrize(("script", "object_name"), [("now", "data"), ("consumers", "model")])
def test_page_script_reads_only_fields_that_the_server_sends(script: str, object_name: str) -> None:
    text = (files("bridge.console") / "static" / f"{script}.js").read_text("utf-8")
    read = set(re.findall(rf"\b{object_name}\.(\w+)", text))
    [drawn] = view_models(sample(trade__A_B=facts(10)))
    now, consumers = NowPage("redis://here"), ConsumersPage()
    sent = {
        "now": {*now.take(drawn), *now.whole(), *unavailable("Redis does not answer")},
        "consumers": {*consumers.take(NOW_US, [], []), *consumers.whole()},
    }

    assert read
    assert read <= sent[script]
