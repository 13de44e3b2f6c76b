"""The keys and shards of names, which writers and readers compute alike."""

import pytest

from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_url import SLOTS, slot_of, tag_of

MARKETS = [f"{base}_USDC{kind}" for base in ("SOL", "BTC", "JUP", "WIF") for kind in ("", "_PERP")]


@pytest.mark.parametrize(
    ("prefix", "shards", "name", "key"),
    [
        ("", 1, "trade.SOL_USDC", "trade.SOL_USDC"),
        ("mine:", 1, "trade.SOL_USDC", "mine:trade.SOL_USDC"),
        ("{bridge}:", 1, "trade.SOL_USDC", "{bridge}:trade.SOL_USDC"),
        ("{bridge}:", 4, "trade.SOL_USDC", "{bridge.3}:trade.SOL_USDC"),
        ("{bridge}:", 4, "trade.SOL_USDC_PERP", "{bridge.3}:trade.SOL_USDC_PERP"),
        ("{bridge}:", 4, "kline.1m.SOL_USDC", "{bridge.3}:kline.1m.SOL_USDC"),
        ("{bridge}:", 16, "trade.JUP_USDC", "{bridge.12}:trade.JUP_USDC"),
        ("a{b}c", 4, "account.orderUpdate.JUP_USDC", "a{b.0}caccount.orderUpdate.JUP_USDC"),
        ("{bridge}:", 4, "account.balanceUpdate", "{bridge.0}:account.balanceUpdate"),
        ("{bridge}:", 4, "bridge:gaps", "{bridge.0}:bridge:gaps"),
        ("{b}:", 4, "consumers:trade.SOL_USDC:g:dead", "{b.3}:consumers:trade.SOL_USDC:g:dead"),
        ("{bridge}:", 4, "consumers:workers:ETH_USDC", "{bridge.0}:consumers:workers:ETH_USDC"),
    ],
)
def test_key_is_the_prefix_of_its_shard_and_the_name(
    prefix: str, shards: int, name: str, key: str
) -> None:
    space = KeySpace(prefix, shards)
    assert space.key(name) == key
    assert space.name(key) == name
    assert space.of(space.shard_of(name)).key(name) == key


@pytest.mark.parametrize("market", MARKETS)
def test_all_streams_of_a_market_are_in_one_slot(market: str) -> None:
    space = KeySpace("{bridge}:", 8)
    names = (f"{kind}.{market}" for kind in ("trade", "depth", "depth.200ms", "kline.1m"))
    assert len({slot_of(tag_of(space.key(name))) for name in names}) == 1


@pytest.mark.parametrize("tag", ["bridge", "mine", "x", "backpack.eu"])
@pytest.mark.parametrize("nodes", [2, 3, 4])
@pytest.mark.parametrize("shards", [4, 8, 16])
def test_shards_are_spread_over_nodes_that_share_the_slots_evenly(
    tag: str, nodes: int, shards: int
) -> None:
    space = KeySpace(f"{{{tag}}}:", shards)
    slots = [slot_of(tag_of(space.prefix_of(shard))) for shard in range(shards)]
    assert len(set(slots)) == shards
    on_node = [sum(slot * nodes // SLOTS == node for slot in slots) for node in range(nodes)]
    assert min(on_node) >= 1
    assert max(on_node) <= 2 * -(-shards // nodes)
    if nodes in (2, 4) and shards < 16:
        assert set(on_node) == {shards // nodes}
