"""The compose file's Cluster, its commands run without Compose."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.command import run_bridge
from tests.support.compose_sets import Containers, containers, needs_redis
from tests.support.eventually import eventually


@needs_redis
def test_nodes_are_a_cluster_and_find_each_other_at_other_addresses(tmp_path: Path) -> None:
    def is_found(them: Containers) -> bool:
        done = run_bridge(tmp_path, them.url(), "check")
        return done.returncode == 0 and "in this Cluster" in " ".join(done.stdout.split())

    with containers("cluster", tmp_path) as them:
        nodes = them.names("redis")
        assert len(nodes) == 6
        them.start(*nodes)
        them.run("redis-cluster")
        eventually(
            lambda: all(_is_ok(them, name, nodes) for name in nodes), "the Cluster is complete"
        )
        eventually(lambda: is_found(them), "`check` finds the Cluster")

        them.stop()
        them.take_ports()
        them.start(*nodes)
        them.run("redis-cluster")

        eventually(
            lambda: all(_is_ok(them, name, nodes) for name in nodes),
            "the Cluster is complete again",
        )
        eventually(lambda: is_found(them), "`check` finds the Cluster again")


def _is_ok(them: Containers, name: str, names: Sequence[str]) -> bool:
    """Whether the node has its peers at their current addresses.

    After a start it uses the old addresses until they have been unavailable for long enough.
    """
    with them.client(name) as client:
        info: Any = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        nodes: Any = client.cluster("NODES")
    facts = (
        info
        if isinstance(info, dict)
        else dict(line.split(":") for line in info.split() if ":" in line)
    )
    ports = {int(where.rpartition(":")[2]) for where, node in nodes.items() if node["connected"]}
    return facts["cluster_state"] == "ok" and ports == {them.ports[each] for each in names}
