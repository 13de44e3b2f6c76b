"""The status of a fleet: members, streams that no bridge receives, and disagreements."""

from typing import Any

from bridge.contract.streams import parse_stream
from bridge.runtime.share import Share
from bridge.view.document import status_document
from bridge.view.facts import BridgeStatus, Sample, ShareStatus, StreamFacts
from bridge.view.fleet import describe_share, missing, reasons, receivers
from bridge.view.history import History
from bridge.view.verdict import Level, judge
from bridge.view.view_model import draw

NOW_US = 1_700_000_000_000_000

MARKETS = ("SOL_USDC", "BTC_USDC", "ETH_USDC", "DOGE_USDC", "XRP_USDC", "APT_USDC", "SUI_USDC")


def bridge(
    instance: str, members: str, *, streams: tuple[str, ...] = (), **share: Any
) -> BridgeStatus:
    facts = {"members": list(members), "me": instance[0], **share}
    return BridgeStatus.model_validate(
        {"instance": instance, "updated_us": 1, "share": facts, "streams": {n: {} for n in streams}}
    )


def mine(member: str, members: str) -> tuple[str, ...]:
    share = Share(tuple(members), member)
    return tuple(
        name for market in MARKETS if share.is_mine(parse_stream(name := f"trade.{market}"))
    )


def test_a_member_shows_its_name_and_the_streams_kept_for_others() -> None:
    share = ShareStatus(members=("a", "b"), me="a")

    assert describe_share(share) == "member a of a, b"
    kept = share.model_copy(update={"kept": 4, "kept_for": ("b",)})
    assert describe_share(kept) == "member a of a, b; keeps 4 streams for b"


def test_a_stream_that_no_bridge_receives_is_reported_with_its_member() -> None:
    one = bridge("a", "abc", unreceived=1, unreceived_streams={"trade.X_USDC": "b"})
    many = bridge(
        "c", "abc", unreceived=7, unreceived_streams={"trade.Y_USDC": "b", "trade.X_USDC": "b"}
    )

    assert missing([one]) == "trade.X_USDC is received by no bridge: it is for member b"
    assert missing([one, many]) == (
        "7 streams, such as trade.X_USDC, are received by no bridge: for member b"
    )
    assert missing([bridge("a", "abc")]) == ""


def test_two_bridges_of_one_member_and_one_that_keeps_are_no_reason() -> None:
    all_of_a, all_of_b = mine("a", "ab"), mine("b", "ab")
    statuses = [
        bridge("a1", "ab", streams=(*all_of_a, "gaps")),
        bridge("a2", "ab", streams=(*all_of_a, *all_of_b)),
        bridge("b", "ab", streams=all_of_b),
    ]

    assert list(reasons(statuses)) == []
    assert receivers(statuses)[all_of_b[0]] == ["a2", "b"]


def test_bridges_of_different_fleets_are_reported_and_streams_received_by_several() -> None:
    alone = bridge("a", "a", streams=mine("a", "a"))
    one_of_two = bridge("b", "ab", streams=mine("b", "ab"))
    result = list(reasons([alone, one_of_two]))

    assert result[0] == "bridges do not agree on who shares the streams: a has a; b has a, b"
    count, first = len(mine("b", "ab")), min(mine("b", "ab"))
    assert result[1] == f"{count} streams, such as {first}, are received by several members: a, b"


def test_status_shows_the_receivers_of_each_stream_and_is_bad_without_one() -> None:
    connected = [{"name": "public-1", "connected": True, "wanted": 1, "confirmed": 1}]
    here: dict[str, Any] = {"updated_us": NOW_US, "connections": connected}
    unreceived = {"unreceived": 1, "unreceived_streams": {"trade.ETH_USDC": "b"}}
    share = {"members": ["a", "b"], "me": "a"}
    first = {"streams": {"trade.SOL_USDC": {}, "trade.BTC_USDC": {}}, "share": share | unreceived}
    second = {"streams": {"trade.SOL_USDC": {}}, "share": share}
    silent = {"streams": {"trade.ETH_USDC": {}, "trade.SOL_USDC": {}}, "updated_us": 1}
    bridges = [
        BridgeStatus.model_validate({"instance": name, **here, **result})
        for name, result in (("a1", first), ("a2", second), ("b", silent))
    ]
    streams = {f"trade.{base}_USDC": StreamFacts(1, 1, "5-1") for base in ("SOL", "BTC", "ETH")}
    history = History()
    history.add(Sample(NOW_US, bridges, streams=streams))
    view_model = draw(history)

    assert {row.name: row.received_by for row in view_model.streams} == {
        "trade.SOL_USDC": ("a1", "a2"),
        "trade.BTC_USDC": ("a1",),
        "trade.ETH_USDC": (),
    }
    text = "trade.ETH_USDC is received by no bridge: it is for member b"
    result = judge(view_model)
    assert (result.level, result.text) == (Level.BAD, text)
    assert text in result.reasons
    assert judge(view_model, "a1").text != text  # it receives its streams
    document = status_document(view_model, "here", result)
    assert document["streams"]["trade.SOL_USDC"]["received_by"] == ["a1", "a2"]
