"""The reasons reported for the end of the publisher's connection."""

import pytest

from bridge.redis.connection import ConnectionLost, RedisConnection


@pytest.mark.parametrize(
    ("reply", "error", "reason"),
    [
        (b"-ERR max number of clients reached\r\n", None, "ERR max number of clients reached"),
        (b"+PONG\r\n", ConnectionResetError(104, "reset"), "[Errno 104] reset"),
        (b"", None, "closed by the server"),
    ],
)
async def test_connection_that_is_lost_has_the_reason_reported_last(
    reply: bytes, error: Exception | None, reason: str
) -> None:
    connection = RedisConnection("here")
    connection.data_received(reply)
    connection.connection_lost(error)

    with pytest.raises(ConnectionLost) as lost:
        await connection.call(b"", 3)

    assert str(lost.value) == f"connection to Redis lost: {reason}"
