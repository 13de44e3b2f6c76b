"""Finds the current primary, or a replica of it, before each connect: queries Sentinels, or the
nodes of a Cluster.

The search is a generator without I/O; the methods around it send the queries, with or without an
event loop. A server found this way must confirm its role itself (`ROLE`): the knowledge of
Sentinels and nodes may be old. No redirect of a Cluster is followed: a connection that receives one
is closed, and the next connect searches again.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry as BlockingRetry

from bridge.runtime.redis_url import Node, RedisUrl, Topology, slot_of

ACTIVE_REPLICA = "active-replica"  # the role of a server that takes writes along with another one
ACTIVE_ACTIVE = "active-active replication: two servers may give the same ID to two entries"

_Search = Generator[Node, object, Node]


class PrimaryFinder:
    """Finds the primary of one set of servers, or a replica to read from; reusable.

    Raises the Redis client's own errors for an option that it does not accept. `connect_timeout_s`
    is for each server that is queried.
    """

    def __init__(self, url: RedisUrl, connect_timeout_s: float) -> None:
        self._url = url
        self._nodes = list(url.nodes)  # in the order of the queries
        self._turn = 0  # round robin over replicas
        options: dict[str, Any] = {
            "protocol": 2,
            "socket_connect_timeout": connect_timeout_s,
            "socket_timeout": connect_timeout_s,
        }
        self._pool = ConnectionPool.from_url(url.query_url, retry=Retry(NoBackoff(), 0), **options)
        self._blocking_pool = redis.ConnectionPool.from_url(
            url.query_url, retry=BlockingRetry(NoBackoff(), 0), **options
        )
        self._pool.make_connection()  # type: ignore[no-untyped-call]

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the connections to queried servers, by the Redis client's names."""
        return dict(self._pool.connection_kwargs)

    async def find(self) -> Node:
        """The primary's address. Raises the Redis client's ConnectionError with the reasons."""
        search, reply = self._search(), None
        while True:
            try:
                node = search.send(reply)
            except StopIteration as found:
                return _node(found)
            options = {**self._pool.connection_kwargs, **node._asdict()}
            connection: Any = self._pool.connection_class(**options)
            try:
                await connection.connect()
                await connection.send_command(*self._query())
                reply = await connection.read_response()
            except (RedisError, OSError, TimeoutError) as error:
                reply = error
            finally:
                await connection.disconnect(nowait=True)

    def find_blocking(self) -> Node:
        """`find` without an event loop."""
        search, reply = self._search(), None
        while True:
            try:
                node = search.send(reply)
            except StopIteration as found:
                return _node(found)
            options = {**self._blocking_pool.connection_kwargs, **node._asdict()}
            connection: Any = self._blocking_pool.connection_class(**options)
            try:
                connection.connect()
                connection.send_command(*self._query())
                reply = connection.read_response()
            except (RedisError, OSError, TimeoutError) as error:
                reply = error
            finally:
                connection.disconnect()

    def check_role(self, node: Node, reply: object) -> None:
        """Check the found server's reply to `ROLE`. Raises ConnectionError where it is not of the
        role searched for: a primary, or a replica that follows one.
        """
        role = role_in(reply)
        if self._url.is_of_replica:
            if not follows(reply):
                raise RedisConnectionError(f"{node} is no replica that follows its primary")
            return
        if role not in ("", "master"):  # "": ROLE was refused; a write will show READONLY
            raise RedisConnectionError(
                f"{node} was named as the primary of {self._url.name} and its role is {role}"
            )

    @property
    def needs_readonly(self) -> bool:
        """Whether a connection must send READONLY: a Cluster's replica refuses reads without it."""
        return self._url.is_of_replica and self._url.topology is Topology.CLUSTER

    def _query(self) -> tuple[str, ...]:
        if self._url.topology is Topology.CLUSTER:
            return "CLUSTER", "SLOTS"
        if self._url.is_of_replica:
            return "SENTINEL", "REPLICAS", self._url.service
        return "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service

    def _search(self) -> _Search:
        """Yield each server to query, receive its reply or error, return the found server."""
        read = self._named if self._url.topology is Topology.SENTINEL else self._owner
        reasons: list[str] = []
        for node in list(self._nodes):
            reply = yield node
            found = reply if isinstance(reply, Exception) else read(node, reply)
            # Round robin: if this server's knowledge is old, the next search begins with another.
            self._nodes.remove(node)
            self._nodes.append(node)
            if isinstance(found, Node):
                return found
            reasons.append(f"{node}: {found}")
        kind = "replica" if self._url.is_of_replica else "primary"
        raise RedisConnectionError(f"no {kind} of {self._url.name} is known ({'; '.join(reasons)})")

    def _named(self, _: Node, reply: Any) -> Node | str:
        """The primary or replica that a Sentinel's reply names, or why there is none."""
        if self._url.is_of_replica:
            facts = [
                dict(zip(map(_text, one[::2]), map(_text, one[1::2]), strict=True))
                for one in reply or ()
            ]
            # With no other flag, such as `s_down` or `disconnected`.
            usable = [one for one in facts if one["flags"] == "slave"]
            return self._one_of([Node(one["ip"], int(one["port"])) for one in usable])
        if not reply:
            return f"it watches no {self._url.service!r}"
        host, port = reply
        return Node(_text(host), int(port))

    def _one_of(self, replicas: Sequence[Node]) -> Node | str:
        """The next replica, round robin: if one does not work, the next search returns another."""
        if not replicas:
            return "it knows no replica that is up"
        self._turn += 1
        return replicas[self._turn % len(replicas)]

    def _owner(self, queried: Node, reply: Any) -> Node | str:
        """The owner of the slot by CLUSTER SLOTS, or why there is none; records all other nodes."""
        ranges = [(int(one[0]), int(one[1]), one[2:]) for one in reply]
        known = [_endpoint(one, queried) for _, _, servers in ranges for one in servers]
        kept = [node for node in self._nodes if node in known or node in self._url.nodes]
        self._nodes = list(dict.fromkeys([*kept, *known]))
        slot = slot_of(self._url.tag)
        for first, last, servers in ranges:
            if first <= slot <= last and self._url.is_of_replica:
                return self._one_of([_endpoint(one, queried) for one in servers[1:]])
            if first <= slot <= last:
                return _endpoint(servers[0], queried)
        return f"slot {slot} has no owner"


def role_in(reply: object) -> str:
    """`master`, `slave`, `sentinel` or ACTIVE_REPLICA, from the reply to ROLE; empty where the
    server refused the command or does not know it.
    """
    return _text(reply[0]) if isinstance(reply, list) and reply else ""


def follows(reply: object) -> bool:
    """Whether this reply to ROLE is of a replica whose link to its primary is up."""
    return role_in(reply) == "slave" and isinstance(reply, list) and _text(reply[3]) == "connected"


def offset_in(reply: object) -> int:
    """The replication offset of a primary or a replica, from the reply to ROLE."""
    assert isinstance(reply, list)
    return int(reply[1] if role_in(reply) == "master" else reply[4])


def _endpoint(server: Sequence[Any], queried: Node) -> Node:
    # A node without a known address of its own returns none, or "?": its host is the queried one.
    host = _text(server[0] or b"")
    return Node(queried.host if host in ("", "?") else host, int(server[1]))


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _node(found: StopIteration) -> Node:
    assert isinstance(found.value, Node)
    return found.value
