"""The check that a replica is fresh enough to be read from."""

import pytest

from bridge.runtime.replica import is_fresh


@pytest.mark.parametrize(
    ("reply", "offset", "is_usable"),
    [
        ([b"slave", b"127.0.0.1", 6379, b"connected", 100], 100, True),
        (["slave", "127.0.0.1", 6379, "connected", 101], 100, True),
        ([b"slave", b"127.0.0.1", 6379, b"connected", 99], 100, False),
        ([b"slave", b"127.0.0.1", 6379, b"connected", 100], None, False),
        ([b"slave", b"127.0.0.1", 6379, b"connect", 100], 100, False),
        ([b"slave", b"127.0.0.1", 6379, b"sync", 100], 100, False),
        ([b"master", 100, []], 100, False),
        (None, 100, False),
    ],
)
def test_replica_is_fresh_if_it_follows_and_has_all_writes(
    reply: object, offset: int | None, is_usable: bool
) -> None:
    assert is_fresh(reply, offset) is is_usable
