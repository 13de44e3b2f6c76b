from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import DataError

from bridge.runtime.redis_client import connect

URL = "redis://127.0.0.1:9"
ARGUMENTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.integers(),
    st.floats(),
)


def connection(client: Redis) -> Any:
    return client.connection_pool.make_connection()  # type: ignore[no-untyped-call]


OURS = connection(connect(URL, name="test"))
LIBRARY = connection(Redis.from_url(URL))


@given(st.sampled_from(["GET", "XINFO STREAM", "EVALSHA"]), st.lists(ARGUMENTS, max_size=8))
def test_command_is_packed_as_the_library_packs_it(name: str, arguments: list[Any]) -> None:
    ours, library = OURS.pack_command(name, *arguments), LIBRARY.pack_command(name, *arguments)
    assert b"".join(ours) == b"".join(map(bytes, library))


def test_command_whose_name_is_bytes_is_packed_too() -> None:
    assert b"".join(OURS.pack_command(b"PING", "a")) == b"*2\r\n$4\r\nPING\r\n$1\r\na\r\n"


@pytest.mark.parametrize("argument", [None, True, object()])
def test_a_value_that_redis_does_not_accept_is_refused_as_the_library_refuses_it(
    argument: object,
) -> None:
    with pytest.raises(DataError, match="Invalid input of type"):
        OURS.pack_command("SET", "key", argument)
