"""A feed whose share shrinks: it keeps, hands over and gives up streams, and takes them back."""

import random

import pytest
from structlog.testing import capture_logs

from bridge.contract.streams import parse_stream
from bridge.feed.feed import Feed
from bridge.feed.plan import SubscriptionPlan
from bridge.runtime.config import Exchange
from bridge.runtime.share import Share
from tests.support.receiving_session import now_us
from tests.support.recording_sink import RecordingSink

NAMES = tuple(f"trade.{base}_USDC" for base in ("SOL", "BTC", "ETH", "XRP", "SUI", "APT", "JUP"))
THEIRS = {name for name in NAMES if not Share(("a", "b"), "a").is_mine(parse_stream(name))}
LIMIT_US = 1000


def plan(*members: str) -> SubscriptionPlan:
    return SubscriptionPlan(NAMES, share=Share(members, "a"))


@pytest.fixture
async def feed() -> Feed:
    """The feed of a bridge that has all streams; it does not run."""
    urls = {"ws_url": "ws://127.0.0.1:1", "rest_url": "http://127.0.0.1:1"}
    return Feed(
        plan("a"),
        Exchange.model_validate(urls),
        RecordingSink(),
        key=None,
        depth_levels=100,
        clock_us=now_us,
        chance=random.Random(1),
    )


async def test_streams_of_another_member_are_kept_until_it_receives_them(feed: Feed) -> None:
    feed.want(plan("a", "b"), keep_from_us=100)
    one, *rest = sorted(THEIRS)

    assert set(feed.streams) == set(NAMES)
    assert feed.handed_over() == feed.elsewhere == dict.fromkeys(THEIRS, "b")
    feed.hand_over([one], LIMIT_US, 200)
    assert set(feed.streams) == set(NAMES) - {one}
    assert set(feed.handed_over()) == set(rest)


async def test_streams_that_no_member_takes_over_are_given_up_and_reported(feed: Feed) -> None:
    feed.want(plan("a", "b"), keep_from_us=100)
    feed.hand_over([], None, 100 + LIMIT_US)
    assert set(feed.streams) == set(NAMES)
    with capture_logs() as logged:
        feed.hand_over([], LIMIT_US, 100 + LIMIT_US)

    assert set(feed.streams) == set(NAMES) - THEIRS
    [line] = [each for each in logged if each["event"] == "streams_not_taken_over"]
    assert (line["count"], line["members"]) == (len(THEIRS), ["b"])


async def test_streams_that_return_to_this_member_are_no_longer_kept(feed: Feed) -> None:
    feed.want(plan("a", "b"), keep_from_us=100)
    feed.want(plan("a"), keep_from_us=200)
    feed.hand_over(list(THEIRS), LIMIT_US, 10 * LIMIT_US)

    assert set(feed.streams) == set(NAMES)
    assert feed.handed_over() == feed.elsewhere == {}


async def test_recorder_unsubscribes_at_once_from_streams_of_another_member(feed: Feed) -> None:
    feed.want(plan("a", "b"))

    assert set(feed.streams) == set(NAMES) - THEIRS


async def test_starting_bridge_keeps_earlier_streams_that_the_fleet_needs(
    feed: Feed,
) -> None:
    feed.want(plan("a", "b"))
    feed.keep([*THEIRS, "trade.GONE_USDC", "bridge:gaps"], 100)

    assert set(feed.streams) == set(NAMES)
    assert set(feed.handed_over()) == THEIRS
