"""The names of the kit's keys have exactly one hash tag, with every prefix."""

import pytest

from bridge.runtime.keyspace import KeySpace
from consumers.kit.redis.keys import Keys


@pytest.mark.parametrize(
    ("prefix", "lease", "pattern"),
    [
        ("", "consumers:{trade.A}:g:lease", "consumers:{*}:g*"),
        ("mine:", "mine:consumers:{mine:trade.A}:g:lease", "mine:consumers:{*}:g*"),
        ("{mine}:", "{mine}:consumers:trade.A:g:lease", "{mine}:consumers:*:g*"),
    ],
)
def test_key_beside_a_stream_has_one_hash_tag(prefix: str, lease: str, pattern: str) -> None:
    keys = Keys(KeySpace(prefix))
    assert keys.lease("trade.A", "g") == lease
    assert keys.all_beside("g") == [pattern]


def test_key_beside_a_stream_is_in_the_streams_shard() -> None:
    keys = Keys(KeySpace("{b}:", 4))
    assert keys.lease("trade.SOL_USDC", "g") == "{b.3}:consumers:trade.SOL_USDC:g:lease"
    assert keys.all_beside("g") == [f"{{b.{shard}}}:consumers:*:g*" for shard in range(4)]
    assert keys.workers("g") == "{b.0}:consumers:workers:g"
