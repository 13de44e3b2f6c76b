from typing import cast

from bridge.redis.publisher import Publisher
from bridge.redis.shards import Publishers


class Pumped:
    """Counts calls of its send method."""

    def __init__(self) -> None:
        self.times = 0

    def pump(self) -> None:
        self.times += 1


def test_publishers_of_all_shards_send_at_once() -> None:
    each = [Pumped(), Pumped(), Pumped()]
    Publishers([cast("Publisher", one) for one in each]).pump()
    assert [one.times for one in each] == [1, 1, 1]
