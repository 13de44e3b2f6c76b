"""The tests' own Redis server."""

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.redis_server import RedisServer, running_redis


def test_redis_url_is_empty_in_a_first_test(redis_url: str, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("left", "behind")


def test_redis_url_is_empty_in_a_second_test(redis_url: str, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        assert client.dbsize() == 0


def test_with_appendonly_a_restart_keeps_what_was_written() -> None:
    with running_redis(appendonly=True) as server, server.client() as client:
        client.set("key", "value")
        server.restart()
        assert client.get("key") == "value"


def test_with_a_password_no_other_client_is_accepted() -> None:
    with (
        running_redis(password="let-me-in") as server,
        redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_a_frozen_server_keeps_silent_until_resumed() -> None:
    with running_redis() as server, server.client() as client:
        server.pause()
        with server.client(socket_timeout=0.2) as impatient, pytest.raises(redis.TimeoutError):
            impatient.ping()
        server.resume()
        assert client.ping()


def test_a_killed_server_starts_again_on_its_port() -> None:
    with running_redis() as server:
        url = server.url
        server.kill()
        with server.client() as client, pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert server.url == url
