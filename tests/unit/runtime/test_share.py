"""The streams of each member of a fleet: each stream has one member, evenly and stably."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.stream_types import STREAM_SPECS
from bridge.contract.streams import parse_stream
from bridge.runtime.share import Share, others

NAMES = st.lists(
    st.text("abcdefgh0123-", min_size=1, max_size=5), min_size=2, max_size=9, unique=True
)
MARKETS = [f"{base}{n}_USDC" for base in ("SOL", "BTC") for n in range(150)]
STREAMS = {f"{kind}.{market}": parse_stream(f"{kind}.{market}")
           for market in MARKETS for kind in ("trade", "depth")}  # fmt: skip
PRIVATE = [parse_stream(kind.value) for kind in STREAM_SPECS if kind.value.startswith("account.")]


def owners(members: list[str]) -> dict[str, str]:
    share = Share(tuple(members), members[0])
    return {name: share.owner(stream) for name, stream in STREAMS.items()}


@given(NAMES)
def test_each_stream_has_one_member_and_all_members_compute_the_same(members: list[str]) -> None:
    mine = Counter(
        name
        for member in members
        for name, stream in STREAMS.items()
        if Share(tuple(members), member).is_mine(stream)
    )

    assert mine == Counter(dict.fromkeys(STREAMS, 1))
    assert owners(members) == owners(sorted(members))


@given(NAMES)
def test_a_new_member_takes_from_all_and_nothing_else_moves(members: list[str]) -> None:
    *before, new = members
    was, now = owners(before), owners(members)
    moved = {name for name in STREAMS if was[name] != now[name]}

    assert {now[name] for name in moved} <= {new}
    assert moved == {name for name in STREAMS if now[name] == new}


def test_shares_are_of_about_one_size() -> None:
    for count in (2, 3, 5, 8):
        sizes = Counter(owners([str(n) for n in range(count)]).values())
        fair = len(STREAMS) / count
        assert all(0.7 * fair < sizes[str(n)] < 1.3 * fair for n in range(count)), sizes


def test_streams_of_a_market_stay_together_and_those_of_the_account_are_the_firsts() -> None:
    share = Share(("a", "b", "c"), "b")
    for market in MARKETS:
        assert len({share.owner(STREAMS[f"{kind}.{market}"]) for kind in ("trade", "depth")}) == 1
    assert {share.owner(stream) for stream in PRIVATE} == {"a"}


def test_others_are_reported_with_their_member() -> None:
    share = Share(("a", "b"), "a")
    result = others(share, STREAMS)

    assert set(result.values()) == {"b"}
    assert result.keys() == {name for name, one in STREAMS.items() if not share.is_mine(one)}
    assert others(None, STREAMS) == {}
