"""The compose file's primary, replicas and Sentinels, their commands run without Compose."""

import contextlib
from pathlib import Path
from typing import Any

import redis

from tests.support.command import run_bridge
from tests.support.compose_sets import Containers, containers, needs_redis
from tests.support.eventually import eventually


@needs_redis
def test_primary_chosen_by_sentinels_remains_after_a_restart(tmp_path: Path) -> None:
    with containers("sentinel", tmp_path) as them:
        servers, sentinels = them.names("redis"), them.names("sentinel")
        them.start(*servers, *sentinels)
        eventually(
            lambda: all(_is_whole(them, name) for name in sentinels),
            "all Sentinels list each other",
        )
        with them.client("redis") as primary:
            eventually(lambda: _replicas(primary) == 2, "both replicas follow")
            primary.xadd("trade.SOL_USDC", {"a": "1"}, id="1-1")
            primary.wait(2, 5000)
        found = run_bridge(tmp_path, them.url(), "check")
        assert "is the primary of mymaster" in " ".join(found.stdout.split()), found.stdout
        for name in sentinels:
            with them.client(name) as client:
                client.execute_command("SENTINEL SET mymaster down-after-milliseconds 500")  # type: ignore[no-untyped-call]

        them.kill("redis")
        eventually(lambda: _primary(them) not in ("redis", ""), "another server is the primary")
        chosen = _primary(them)
        them.start("redis")
        eventually(lambda: _follows(them, "redis"), "the previous primary follows it")
        with them.client(chosen) as primary:
            primary.xadd("trade.SOL_USDC", {"a": "2"}, id="2-1")
            primary.wait(2, 5000)
        them.stop()
        them.start(*servers, *sentinels)

        with them.client(chosen) as primary:
            assert primary.role()[0] in ("master", b"master")
            assert primary.xlen("trade.SOL_USDC") == 2
        eventually(lambda: _primary(them) == chosen, "Sentinels name the same primary")
        eventually(lambda: _follows(them, "redis"), "the previous primary follows again")


def _is_whole(them: Containers, name: str) -> bool:
    with them.client(name) as client:
        state: Any = client.sentinel_master("mymaster")
    return int(state["num-slaves"]) == 2 and int(state["num-other-sentinels"]) == 2


def _replicas(client: redis.Redis) -> int:
    info: Any = client.info("replication")
    return sum(info.get(f"slave{n}", {}).get("state") == "online" for n in (0, 1))


def _primary(them: Containers) -> str:
    """The name of the primary on which all Sentinels agree; empty while they do not."""
    ports = set()
    for name in them.names("sentinel"):
        with them.client(name) as client:
            found: Any = client.sentinel_get_master_addr_by_name("mymaster")
            ports.add(int(found[1]))
    names = [name for name, port in them.ports.items() if port in ports]
    return names[0] if len(ports) == 1 else ""


def _follows(them: Containers, name: str) -> bool:
    with them.client(name) as client, contextlib.suppress(redis.RedisError):
        info: Any = client.info("replication")
        return info["role"] == "slave" and info["master_link_status"] == "up"
    return False
