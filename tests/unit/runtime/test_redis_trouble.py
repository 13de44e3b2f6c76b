"""The reason and the remedy in the messages for a Redis that cannot be read."""

import pytest
from redis.exceptions import AuthenticationError, ResponseError, TimeoutError
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.runtime.redis_trouble import connect_advice, unreadable

_AUTHORITY = "name the authority behind its certificate: rediss://…?ssl_ca_certs=/etc/redis/ca.pem"


@pytest.mark.parametrize(
    ("url", "reason", "advice"),
    [
        ("rediss://h", "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", _AUTHORITY),
        ("rediss+cluster://h/0?hash_tag=b", "[SSL: CERTIFICATE_VERIFY_FAILED] …", _AUTHORITY),
        (
            "redis://h",
            "Connect call failed ('127.0.0.1', 6379)",
            "start it, or set redis.url (`embedded`: a server of our own); a bridge waits for it",
        ),
        (
            "redis+cluster://h:1,i:2/0?hash_tag=b",
            "no primary of main is known (h:1: This instance has cluster support disabled)",
            "this is one server: redis.url: redis://h:1/0",
        ),
        (
            "redis+sentinel://h:1/main/0",
            "no primary of main is known (h:1: unknown command 'SENTINEL', with args)",
            "this is no Sentinel: redis.url: redis://h:1/0",
        ),
        (
            "redis+cluster://h:1/0?hash_tag=b",
            "no primary of main is known (h:1: unknown command 'CLUSTER', with args)",
            "is it a Sentinel? redis.url: redis+sentinel://h:1/<name>/0",
        ),
        (
            "redis+sentinel://h:1/main/0",
            "no primary of main is known (h:1: refused)",
            "check what each server replied, and redis.url; a bridge waits for it",
        ),
    ],
)
def test_the_advice_fits_why_redis_cannot_be_reached(url: str, reason: str, advice: str) -> None:
    assert connect_advice(reason, url) == advice


def test_an_unreachable_server_is_reported_with_the_remedy() -> None:
    error = RedisConnectionError("Error 111 connecting to h:6379. Connection refused.")
    assert str(unreadable(error, "redis://:hush@h:6379/0")) == (
        "Redis at redis://:***@h:6379/0 cannot be read: "
        "Error 111 connecting to h:6379. Connection refused: "
        "start it, or set redis.url (`embedded`: a server of our own); a bridge waits for it"
    )


def test_without_a_primary_the_advice_is_to_check_each_servers_reply() -> None:
    error = RedisConnectionError("no primary of main is known (h:1: refused)")
    assert str(unreadable(error, "redis+sentinel://h:1/main/0", "read or written")) == (
        "Redis at redis+sentinel://h:1/main/0 cannot be read or written: "
        "no primary of main is known (h:1: refused): "
        "check what each server replied, and redis.url; a bridge waits for it"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError("Timeout reading from h:6379"), "Timeout reading from h:6379"),
        (ResponseError("WRONGTYPE Operation"), "WRONGTYPE Operation"),
        (OSError(), "OSError"),
        (
            AuthenticationError("Authentication required."),
            "Authentication required: put user and password into redis.url (BRIDGE_REDIS__URL in "
            ".env): redis://<user>:<password>@<host>:<port>/0",
        ),
    ],
)
def test_no_advice_to_start_a_server_that_runs(error: Exception, expected: str) -> None:
    assert (
        str(unreadable(error, "redis://h/0")) == f"Redis at redis://h/0 cannot be read: {expected}"
    )
