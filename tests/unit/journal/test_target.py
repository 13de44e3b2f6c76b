"""The Redis that a checkpoint is for: a set of servers, independent of its present primary."""

import pytest

from bridge.app import target_of
from bridge.runtime.config import Config, Redis
from bridge.runtime.redis_client import resolve_url


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({"url": "redis://u:pw@localhost:6379/2"}, "127.0.0.1:6379/2"),
        ({"url": "redis://h/0", "key_prefix": "mine:"}, "h:6379/0 mine:"),
        ({"url": "redis+sentinel://u:pw@s1,s2:7/main/3"}, "sentinel main/3"),
        ({"url": "redis+sentinel://s2:7,s9/main/3"}, "sentinel main/3"),
        ({"url": "redis+cluster://n1:7000"}, "cluster {bridge} {bridge}:"),
        ({"url": "redis+cluster://n7,n8", "shards": 4}, "cluster {bridge} in 4 shards {bridge}:"),
    ],
)
def test_target_of_a_checkpoint_names_the_set_and_no_node(
    settings: dict[str, object], target: str
) -> None:
    config = Config(redis=Redis.model_validate(settings))
    assert target_of(config, resolve_url(config)) == target
