"""The users of `deploy/redis/users.acl`: each has the rights for its own work and no others."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import redis

from bridge.contract.stream_types import STREAM_SPECS
from tests.support.bridge_run import ROOT, running_bridge
from tests.support.command import run_bridge
from tests.support.consumer_commands import consumers
from tests.support.consumer_worker import Worker
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import running_simulator

FILE = ROOT / "deploy/redis/users.acl"
TRADES = "trade.SOL_USDC"

# Commands that the user of each role must not run: those that a stolen password would be used for.
REFUSED = {
    "bridge": [
        "FLUSHALL",
        "CONFIG SET dir /tmp",
        "CLIENT KILL TYPE normal",
        "ACL LIST",
        "KEYS *",
        "SHUTDOWN NOSAVE",
        "REPLICAOF x 1",
        "SET elsewhere 1",
        "DEL consumers:status",
        "HSET consumers:status a b",
        "XADD consumers:{trade.SOL_USDC}:candles:dead * a b",
        "XREADGROUP GROUP g c STREAMS trade.SOL_USDC >",
        "XGROUP DESTROY trade.SOL_USDC candles",
        "MIGRATE h 1 trade.SOL_USDC 0 1",
    ],
    "observer": [
        "XADD trade.SOL_USDC * a b",
        "XREADGROUP GROUP candles x STREAMS trade.SOL_USDC >",
        "XACK trade.SOL_USDC candles 1-1",
        "HSET bridge:watermarks trade.SOL_USDC 1",
        "DEL bridge:streams",
        "CLIENT KILL TYPE normal",
        "CONFIG GET requirepass",
        "FLUSHDB",
    ],
    "candles": [
        "XADD trade.SOL_USDC 1-1 a b",
        "DEL trade.SOL_USDC",
        "XTRIM trade.SOL_USDC MAXLEN 0",
        "XDEL trade.SOL_USDC 1-1",
        "XGROUP DESTROY trade.SOL_USDC candles",
        "XRANGE account.orderUpdate - +",
        "XREADGROUP GROUP candles x STREAMS account.orderUpdate >",
        "HSET bridge:watermarks trade.SOL_USDC 1",
        "HDEL bridge:streams trade.SOL_USDC",
        "DEL bridge:streams",
        "DEL consumers:status",
        "SET consumers:{trade.SOL_USDC}:book:lease x",
        "DEL consumers:{trade.SOL_USDC}:book:position",
        "ZREM consumers:workers:book w",
        "CLIENT KILL TYPE normal",
        "CONFIG SET dir /tmp",
        "FLUSHALL",
        "SCRIPT FLUSH",
    ],
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Redis with the shipped file, which has no comments: Redis before 8.8 refuses them."""
    with running_redis(password="CHANGE-admin", options=("--aclfile", str(FILE))) as started:
        yield started


def url(server: RedisServer, user: str) -> str:
    return server.url.replace("://:CHANGE-admin@", f"://{user}:CHANGE-{user}@")


@pytest.mark.timeout(120)
async def test_each_user_can_do_its_work(tmp_path: Path, server: RedisServer) -> None:
    candles, observer = url(server, "candles"), url(server, "observer")
    streams = [TRADES, "depth.SOL_USDC", "ticker.SOL_USDC", "account.orderUpdate"]
    with server.client() as admin:
        async with (
            running_simulator("--rate", "300") as exchange,
            running_bridge(
                tmp_path / "bridge", exchange.ws_url, url(server, "bridge"), streams,
                status_url=observer,
            ) as bridge,
        ):  # fmt: skip
            await eventually_async(
                lambda: all(admin.xlen(each) for each in streams), "each stream has an entry"
            )
            worker = Worker(tmp_path, candles, "candles", "--streams", TRADES)
            await eventually_async(
                lambda: admin.hget("consumers:status", f"candles/{worker.name}"),
                "the worker has written a status",
            )
            await eventually_async(
                lambda: json.loads(
                    str(admin.hget("consumers:status", f"candles/{worker.name}"))
                ).get("handled"),
                "the worker has handled entries",
            )
            for command in (("status",), ("tap", TRADES, "--count", "2")):
                done = run_bridge(tmp_path, observer, *command)
                assert done.returncode == 0, done.stderr
            assert "candles" in run_bridge(tmp_path, observer, "status").stdout
            lags = consumers(tmp_path, "status", BRIDGE_REDIS__URL=observer)
            assert lags.returncode == 0, lags.stderr
            assert "candles" in lags.stdout
            with (
                redis.Redis.from_url(observer) as reader,
                pytest.raises(redis.ResponseError, match=r"permissions|can't run"),
            ):
                reader.eval("return redis.call('XADD', KEYS[1], '*', 'a', 'b')", 1, TRADES)
            assert worker.stop() in (0, 130)
            log = bridge.log()
    assert "may not" not in log
    assert "NOPERM" not in log + worker.err + worker.out
    assert "redis_unavailable" not in worker.err


@pytest.mark.parametrize(
    ("user", "words"), [(user, words) for user, several in REFUSED.items() for words in several]
)
def test_user_without_the_right_is_refused(server: RedisServer, user: str, words: str) -> None:
    with server.client() as admin:
        reply = admin.execute_command("ACL DRYRUN", user, *words.split())
    assert reply != "OK"
    assert "no permissions" in str(reply), reply


def test_without_a_password_no_client_is_accepted(server: RedisServer) -> None:
    with server.client() as admin:
        users = admin.acl_list()
    assert not [user for user in users if " nopass " in user]


def test_the_bridge_may_write_every_stream_there_is() -> None:
    line = next(line for line in FILE.read_text().splitlines() if line.startswith("user bridge "))
    patterns = [word[1:] for word in line.split() if word.startswith("~")]
    for kind in STREAM_SPECS:
        names = [f"{kind.value}.SOL_USDC", kind.value]
        assert any(fnmatchcase(name, each) for name in names for each in patterns), kind
