"""A counter that is added to `core.counters` is in the view's model and in the status."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from bridge.commands import status
from bridge.core.counters import SHOWN, CoreCounters, Counters, StreamCounters
from bridge.view import facts
from bridge.view.document import status_document
from bridge.view.facts import BridgeStatus, Sample, StreamFacts, read_statuses
from bridge.view.history import History
from bridge.view.verdict import judge
from bridge.view.view_model import ViewModel, draw

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
NOW_US = 1_700_000_000_000_000
TRADES = "trade.A_B"


@dataclass(slots=True)
class MoreOfStreams(StreamCounters):
    made_up: int = field(default=0, metadata=SHOWN)


@dataclass(slots=True)
class MoreOfCores(CoreCounters):
    made_up_too: int = 0


def status_text(instance: str, core: Counters, stream: Counters) -> str:
    """The JSON of a bridge's status with these counters, in the form of `Bridge.status`."""
    streams = {TRADES: {**asdict(stream), "pending": 1}}
    facts: dict[str, Any] = {"instance": instance, "updated_us": NOW_US, "streams": streams}
    return json.dumps(facts | asdict(core))


def view_model(*texts: str) -> ViewModel:
    bridges, unreadable = read_statuses(BridgeStatus, dict(enumerate(texts)))  # type: ignore[arg-type]
    assert unreadable == 0
    history = History()
    history.add(Sample(NOW_US, bridges, streams={TRADES: StreamFacts()}))
    return draw(history)


def test_added_counter_is_in_the_views_model_and_in_status_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (facts, status):
        monkeypatch.setattr(module, "StreamCounters", MoreOfStreams)
    monkeypatch.setattr(facts, "CoreCounters", MoreOfCores)
    one = status_text("a", MoreOfCores(frames=5, made_up_too=7), MoreOfStreams(gaps=1, made_up=2))
    two = status_text("b", MoreOfCores(), MoreOfStreams(gaps=2, made_up=40))

    seen = view_model(one, two)

    assert seen.bridges[0].status.counters == MoreOfCores(frames=5, made_up_too=7)
    assert seen.streams[0].status.counters == MoreOfStreams(gaps=3, made_up=42)
    plain = status_document(seen, "redis", judge(seen))
    assert (plain["bridges"][0]["frames"], plain["bridges"][0]["made_up_too"]) == (5, 7)
    stream = plain["streams"][TRADES]
    assert (stream["gaps"], stream["made_up"], stream["pending"]) == (3, 42, 2)
    made = status._streams(seen, 200)
    columns = {str(each.header): list(each.cells) for each in made.columns}
    assert [str(cell) for cell in columns["made_up"]] == ["42"]


def test_status_without_a_counter_or_with_an_unknown_one_is_read() -> None:
    whole = json.loads(status_text("a", CoreCounters(), StreamCounters(late=3)))
    del whole["streams"][TRADES]["published"]
    whole["streams"][TRADES]["of_a_later_version"] = 1

    [stream] = view_model(json.dumps(whole)).streams

    assert stream.status.counters == StreamCounters(late=3)


def test_status_with_a_counter_that_is_no_number_is_not_read() -> None:
    text = json.dumps({"instance": "a", "updated_us": 1, "frames": "many"})

    assert read_statuses(BridgeStatus, {"a": text}) == ((), 1)


@pytest.mark.parametrize("counters", [StreamCounters, CoreCounters])
def test_every_counter_is_explained_in_the_operations_page(counters: type[Counters]) -> None:
    page = OPERATIONS.read_text()
    prefix = "streams[]." if counters is StreamCounters else ""
    names = {each.name for each in fields(counters)}

    assert {name for name in names if f"`{prefix}{name}`" not in page} == set()
