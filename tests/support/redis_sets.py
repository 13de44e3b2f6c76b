"""Sets of real servers: replicas under Sentinels, and a small Cluster.

The test server's binary can run all of them, so no package from outside pip is needed. Every
process belongs to one test and ends after it in any state.
"""

import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from bridge.runtime.redis_url import SLOTS, slot_of
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer, free_port

SERVICE = "mymaster"
DOWN_AFTER_MS = 500
NODE_TIMEOUT_MS = 1000
MANUAL_FAILOVER_S = 6.0  # a replica's attempt ends after 5 s; then it needs a new command


class _Sentinel(RedisServer):
    """A Sentinel, with the configuration file that holds its state."""

    def __init__(self, folder: Path, watched: int, quorum: int) -> None:
        super().__init__(folder)
        self.config = folder / "sentinel.conf"
        self.config.write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {watched} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 2000\n"
        )

    def _arguments(self) -> list[str]:
        return [str(self.config), "--sentinel"]


class Watched:
    """A primary, its replicas, and the Sentinels that watch them."""

    def __init__(
        self, servers: Sequence[RedisServer], sentinels: Sequence[RedisServer], prefix: str = ""
    ) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self.prefix = prefix

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def owner(self) -> RedisServer:
        """The server that Sentinels name as the primary."""
        for sentinel in self.sentinels:
            with sentinel.client() as client, contextlib.suppress(redis.RedisError):
                host_port: Any = client.execute_command(  # type: ignore[no-untyped-call]
                    "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE
                )
                return _of_port(self.servers, int(host_port[1]))
        raise AssertionError("no Sentinel answers")

    def replicas(self) -> list[RedisServer]:
        """All servers but the primary, running or not."""
        owner = self.owner()
        return [one for one in self.servers if one is not owner]

    def fail_over(self) -> None:
        """Order a fail-over; returns when another server is the primary and the previous one a
        replica, which Sentinels arrange within 8 s more.
        """
        before = self.owner()
        eventually(self._asks_for_another, "a Sentinel begins the fail-over")
        self.await_other_than(before)

    def _asks_for_another(self) -> bool:
        with self.sentinels[0].client() as client, contextlib.suppress(redis.ResponseError):
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)  # type: ignore[no-untyped-call]
            return True
        return False  # the Sentinel has no state of its replicas yet

    def await_other_than(self, before: RedisServer) -> None:
        """Wait until another server reports the role of primary and the previous one does not."""
        eventually(
            lambda: (now := self.owner()) is not before and _role(now) == "master",
            "another server is the primary",
        )
        eventually(lambda: _role(before) != "master", "the previous owner is no primary")

    def follows(self) -> bool:
        """Whether all replicas follow the primary."""
        return all(map(_follows, self.replicas()))

    def is_whole(self) -> bool:
        """Whether every Sentinel lists all servers and all other Sentinels."""
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                reply: Any = client.execute_command("SENTINEL", "MASTER", SERVICE)  # type: ignore[no-untyped-call]
                facts = dict(zip(reply[::2], reply[1::2], strict=True))
            if int(facts["num-slaves"]) < len(self.servers) - 1:
                return False
            if int(facts["num-other-sentinels"]) < len(self.sentinels) - 1:
                return False
        return True


class Cluster:
    """A small Cluster; `prefix` is the key prefix whose slot the tests use."""

    def __init__(
        self, servers: list[RedisServer], prefix: str, start: Callable[[], RedisServer]
    ) -> None:
        self.servers = servers
        self._start = start
        self.prefix = prefix
        self.slot = slot_of(prefix.strip("{}:"))

    @property
    def url(self) -> str:
        """The URL with only the first two nodes: clients discover the others."""
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.servers[:2])
        return f"redis+cluster://{hosts}/0"

    def owner(self, slot: int | None = None) -> RedisServer:
        """The owner of a slot (by default the prefix's), according to the first node that
        replies.
        """
        slot_number = self.slot if slot is None else slot
        for server in self.servers:
            with server.client() as client, contextlib.suppress(redis.RedisError):
                ranges: Any = client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
                for first, last, primary, *_ in _ranges(ranges):
                    if first <= slot_number <= last:
                        return _of_port(self.servers, primary)
        raise AssertionError("no node answers")

    def replicas(self) -> list[RedisServer]:
        """The running replicas of the slot's owner."""
        owner = self.owner()
        found = []
        for server in self.servers:
            with server.client() as client, contextlib.suppress(redis.RedisError):
                role: Any = client.role()  # type: ignore[no-untyped-call]
                if role[0] == "slave" and int(role[2]) == owner.port:
                    found.append(server)
        return found

    def fail_over(self) -> None:
        """Send `CLUSTER FAILOVER` to a replica; returns when it owns the slot."""
        before = self.owner()
        replica = self.replicas()[0]
        asked_s = -MANUAL_FAILOVER_S

        def has_moved() -> bool:
            nonlocal asked_s
            if time.monotonic() > asked_s + MANUAL_FAILOVER_S:
                asked_s = time.monotonic()
                with replica.client() as client:
                    client.execute_command("CLUSTER", "FAILOVER")  # type: ignore[no-untyped-call]
            return self.owner() is not before

        eventually(has_moved, "the replica has taken the slot")
        self.await_other_than(before)

    def await_other_than(self, before: RedisServer) -> None:
        """Wait until another node reports that it owns the slot and the previous one does not."""
        eventually(
            lambda: (now := self.owner()) is not before and _role(now) == "master",
            "another node owns the slot",
        )
        eventually(lambda: _role(before) != "master", "the previous owner is no primary")

    def other_primary(self) -> RedisServer:
        """A primary that does not own the slot."""
        owner = self.owner()
        return next(one for one in self.servers if one is not owner and _role(one) == "master")

    def at(self, prefix: str) -> "Cluster":
        """The same Cluster, for the slot of another prefix."""
        return Cluster(self.servers, prefix, self._start)

    def add_node(self) -> RedisServer:
        """Add a node without slots; returns when all nodes list it."""
        added = self._start()
        with self.servers[0].client() as client:
            _cluster(client, "MEET", "127.0.0.1", added.port, _bus(added))
        self.servers.append(added)
        eventually(self.is_whole, "all nodes list the added node")
        return added

    def begin_move(self, to: RedisServer | None = None) -> tuple[RedisServer, RedisServer]:
        """Begin to move the slot from its owner to another primary; both servers."""
        source, target = self.owner(), to or self.other_primary()
        with source.client() as one, target.client() as other:
            _cluster(other, "SETSLOT", self.slot, "IMPORTING", _cluster(one, "MYID"))
            _cluster(one, "SETSLOT", self.slot, "MIGRATING", _cluster(other, "MYID"))
        return source, target

    def move_keys(self, source: RedisServer, target: RedisServer, at_once: int) -> bool:
        """Move up to `at_once` keys of the slot; whether there may be more."""
        with source.client() as client:
            keys = _cluster(client, "GETKEYSINSLOT", self.slot, at_once)
            if keys:
                client.execute_command(  # type: ignore[no-untyped-call]
                    "MIGRATE", "127.0.0.1", target.port, "", 0, 10_000, "KEYS", *keys
                )
            return bool(keys)

    def call_off(self, source: RedisServer, target: RedisServer) -> None:
        """Cancel the move of a slot before any key has moved."""
        for server in (source, target):
            with server.client() as client:
                _cluster(client, "SETSLOT", self.slot, "STABLE")

    def end_move(self, source: RedisServer, target: RedisServer) -> None:
        """Assign the slot to the target; every node learns of it."""
        with source.client() as one, target.client() as other:
            owner = _cluster(other, "MYID")
            _cluster(other, "SETSLOT", self.slot, "NODE", owner)
            # the source lost its last slot and is a replica
            with contextlib.suppress(redis.ResponseError):
                _cluster(one, "SETSLOT", self.slot, "NODE", owner)

    def follows(self) -> bool:
        """Whether the replicas of the slot's owner follow it."""
        return all(map(_follows, self.replicas()))

    def is_whole(self) -> bool:
        """Whether every node lists all nodes and all slots, and the replicas follow."""
        for server in self.servers:
            with server.client() as client:
                info = _cluster(client, "INFO")
                facts = (
                    info
                    if isinstance(info, dict)
                    else dict(line.split(":", 1) for line in str(info).split())
                )
            if facts["cluster_state"] != "ok":
                return False
            if int(facts["cluster_known_nodes"]) < len(self.servers):
                return False
        return all(_follows(one) for one in self.servers if _role(one) == "slave")


@contextlib.contextmanager
def running_watched(replicas: int = 2, sentinels: int = 3) -> Iterator[Watched]:
    """Replicas under Sentinels that have found each other."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder())
        # otherwise a primary waits for further replicas
        quick = ("--repl-diskless-sync-delay", "0")
        primary = stack.enter_context(_running(RedisServer(_sub(folder, "0"), options=quick)))
        servers = [primary]
        for number in range(1, replicas + 1):
            follow = ("--replicaof", f"127.0.0.1 {primary.port}")
            server = RedisServer(_sub(folder, str(number)), options=(*follow, *quick))
            servers.append(stack.enter_context(_running(server)))
        eventually(lambda: all(map(_follows, servers[1:])), "the replicas follow")
        quorum = sentinels // 2 + 1
        watchers = [
            stack.enter_context(_running(_Sentinel(_sub(folder, f"s{n}"), primary.port, quorum)))
            for n in range(sentinels)
        ]
        for watcher in watchers:
            with watcher.client() as client:  # the default interval of polls is 10 s
                client.execute_command("SENTINEL", "DEBUG", "info-period", 200)  # type: ignore[no-untyped-call]
        watched = Watched(servers, watchers)
        eventually(watched.is_whole, "all Sentinels list all servers and Sentinels")
        yield watched


@contextlib.contextmanager
def running_cluster(
    primaries: int = 3, replicas: int = 3, prefix: str = "{bridge}:"
) -> Iterator[Cluster]:
    """Primaries share the slots evenly; each replica follows one in turn, first the prefix's
    owner.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder())
        numbers = itertools.count()

        def start() -> RedisServer:
            return stack.enter_context(_running(_node(_sub(folder, str(next(numbers))))))

        servers = [start() for _ in range(primaries + replicas)]
        cluster = Cluster(servers, prefix, start)
        first, *others = servers
        with first.client() as client:
            for other in others:
                _cluster(client, "MEET", "127.0.0.1", other.port, _bus(other))
        bounds = [SLOTS * n // primaries for n in range(primaries + 1)]
        for server, low, high in zip(servers, bounds, bounds[1:], strict=False):
            with server.client() as client:
                _cluster(client, "ADDSLOTSRANGE", low, high - 1)
        # Each primary gets its own epoch, since primaries of equal epochs must resolve a conflict
        # first.
        for epoch, server in enumerate(servers, 1):
            with server.client() as client, contextlib.suppress(redis.ResponseError):
                _cluster(client, "SET-CONFIG-EPOCH", epoch)
        eventually(cluster.is_whole, "all nodes list each other")
        home = next(n for n in range(primaries) if bounds[n] <= cluster.slot < bounds[n + 1])
        for number, replica in enumerate(servers[primaries:]):
            with servers[(home + number) % primaries].client() as client:
                followed = _cluster(client, "MYID")
            with replica.client() as client:
                _cluster(client, "REPLICATE", followed)
        eventually(cluster.is_whole, "the replicas follow")
        yield cluster


def lose_what_comes(owner: RedisServer, replicas: Sequence[RedisServer]) -> None:
    """Stop replication: a crash loses the writes that the owner acknowledges from here on."""
    for replica in replicas:
        replica.pause()
    with owner.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")  # type: ignore[no-untyped-call]


def _node(folder: Path) -> RedisServer:
    bus = free_port()
    (folder / "bus").write_text(str(bus))
    return RedisServer(
        folder,
        options=(
            *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
            *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
            *("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"),
            # The other nodes continue when one is down.
            *("--cluster-require-full-coverage", "no"),
        ),
    )


def _bus(server: RedisServer) -> str:
    return (server.folder / "bus").read_text()


def _sub(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="redis-set-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(server: RedisServer) -> Iterator[RedisServer]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _cluster(client: redis.Redis, *arguments: str | int) -> Any:
    return client.execute_command("CLUSTER", *arguments)  # type: ignore[no-untyped-call]


def _ranges(reply: Any) -> Iterator[tuple[int, int, int]]:
    """First slot, last slot and port of the primary, from either form of the client's reply."""
    if isinstance(reply, dict):
        for (first, last), servers in reply.items():
            yield int(first), int(last), int(servers["primary"][1])
        return
    for first, last, primary, *_ in reply:
        yield int(first), int(last), int(primary[1])


def _role(server: RedisServer) -> str:
    with server.client() as client, contextlib.suppress(redis.RedisError):
        role: Any = client.role()  # type: ignore[no-untyped-call]
        return str(role[0])
    return ""


def _follows(server: RedisServer) -> bool:
    with server.client() as client, contextlib.suppress(redis.RedisError):
        return bool(client.info("replication").get("master_link_status") == "up")
    return False


def _of_port(servers: Sequence[RedisServer], port: int) -> RedisServer:
    return next(one for one in servers if one.port == port)
