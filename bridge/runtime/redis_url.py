"""Parses Redis URLs of every kind (pure).

    redis://[user:password@]host:6379/0                            one server; rediss: over TLS
    unix:///run/redis.sock?db=0                                    one server, by its socket
    redis+sentinel://[user:password@]s1:26379,s2:26379/mymaster/0  the primary, found by Sentinels
    redis+cluster://[user:password@]n1:6379,n2:6379/0              a Cluster, by its hash tags

User and password are for Redis. Sentinels get none, except `sentinel_username=` and
`sentinel_password=` after the `?`; they are queried over TLS where Redis is (`rediss+sentinel`),
unless `sentinel_tls=` sets it. All other options after the `?` are the Redis client's.
"""

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from bridge.runtime.urls import split_url

SLOTS = 16_384
LOGIN_ADVICE = (  # where Redis requires a login, or a different one
    "put user and password into redis.url (BRIDGE_REDIS__URL in .env): "
    "redis://<user>:<password>@<host>:<port>/0"
)
_TAG = "hash_tag"  # own option: selects the slot of a Cluster; made of `redis.key_prefix`
_SHARDS = "shards"  # own option: the number of slots, each with its number after the tag
_READS = "reads"  # own option: `replica` for a connection that only reads
OUR_OPTIONS = frozenset(
    [_TAG, _SHARDS, _READS, "sentinel_username", "sentinel_password", "sentinel_tls"]
)


class Topology(Enum):
    """How the server that takes writes is found."""

    SERVER = "one server, or an address that follows the primary by itself"
    SENTINEL = "Sentinels"
    CLUSTER = "a Cluster"


_TOPOLOGIES = {
    "redis": Topology.SERVER,
    "unix": Topology.SERVER,
    "redis+sentinel": Topology.SENTINEL,
    "redis+cluster": Topology.CLUSTER,
}
_PORTS = {Topology.SERVER: 6379, Topology.SENTINEL: 26_379, Topology.CLUSTER: 6379}


class Node(NamedTuple):
    """Address of a server, a Sentinel or a node of a Cluster."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed URL.

    `plain` is a URL for the Redis client, with the first node as its host; for Sentinels and
    Clusters only its login and options are used. `query_url` is the URL for the queries about the
    primary. `nodes` is empty for a socket's path.
    """

    topology: Topology
    plain: str
    nodes: tuple[Node, ...]
    query_url: str = ""
    db: int = 0
    service: str = ""  # the Sentinels' name of the set of servers
    tag: str = ""  # the hash tag whose slot of a Cluster is used
    shards: int = 1  # of a Cluster; each has its own slot
    is_of_replica: bool = False  # a replica to read from, instead of the primary

    @property
    def name(self) -> str:
        """Name of the set of servers, independent of the current primary; empty for one server."""
        if self.topology is Topology.SENTINEL:
            return f"sentinel {self.service}/{self.db}"
        if self.topology is Topology.SERVER:
            return ""
        in_shards = f" in {self.shards} shards" if self.shards > 1 else ""
        return f"cluster {{{self.tag}}}{in_shards}"

    def __repr__(self) -> str:  # without the password
        return f"RedisUrl({self.name or ','.join(map(str, self.nodes))})"


def parse_redis_url(url: str) -> RedisUrl:
    """Parse a URL. Raises ValueError with the mistake, without the URL itself."""
    if not url.isprintable():
        raise ValueError("has a character that is not printed: write it as its code, such as %0A")
    parts = split_url(url)
    scheme = parts.scheme.replace("rediss", "redis", 1)
    topology = _TOPOLOGIES.get(scheme)
    if topology is None or (scheme == "unix" and _no_path(parts.path)):
        raise ValueError(_KINDS)
    if scheme == "unix":
        return RedisUrl(topology, url, ())
    is_tls = parts.scheme.startswith("rediss")
    userinfo, at, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(host, _PORTS[topology]) for host in hosts.split(","))
    if topology is Topology.SERVER:
        if len(nodes) > 1:
            raise ValueError("names several servers: redis+sentinel:// or redis+cluster://")
        return RedisUrl(topology, url, nodes, db=_database(parts.path.removeprefix("/")))
    service, database = _path(topology, parts.path)
    options = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in options if name in OUR_OPTIONS}
    rest = [pair for pair in options if pair[0] not in OUR_OPTIONS]
    tls = [pair for pair in rest if pair[0].startswith("ssl_")]
    others = [pair for pair in rest if pair not in tls]
    plain = _plain(f"{userinfo}{at}", nodes[0], database, others, tls if is_tls else None)
    query_url = plain
    if topology is Topology.SENTINEL:
        login = _login(ours.get("sentinel_username", ""), ours.get("sentinel_password", ""))
        queries_by_tls = _flag("sentinel_tls", ours.get("sentinel_tls", str(is_tls)))
        query_url = _plain(login, nodes[0], 0, [], tls if queries_by_tls else None)
        if tls and not (is_tls or queries_by_tls):
            raise ValueError(f"has {tls[0][0]} and no TLS: write rediss+sentinel")
    elif tls and not is_tls:
        raise ValueError(f"has {tls[0][0]} and no TLS: write rediss+cluster")
    tag, shards = ours.get(_TAG, ""), _shards(ours.get(_SHARDS, "1"))
    is_of_replica = ours.get(_READS) == "replica"
    return RedisUrl(
        topology, plain, nodes, query_url, database, service, tag, shards, is_of_replica
    )


def with_tag(url: str, prefix: str, shards: int = 1) -> str:
    """The URL; of a Cluster, with the hash tag of this key prefix and the number of shards, which
    select its slots.
    """
    if not is_cluster(url):
        return url
    ours: dict[str, str | int] = {_TAG: tag_of(prefix)}
    if shards > 1:
        ours[_SHARDS] = shards
    return f"{url}{'&' if '?' in url else '?'}{urlencode(ours)}"


def replica_url(url: str) -> str:
    """The URL of a replica of the same set, for Sentinels or a Cluster."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode({_READS: 'replica'})}"


def has_replicas(url: str) -> bool:
    """Whether the URL is of Sentinels or a Cluster, which know replicas."""
    return split_url(url).scheme.partition("+")[2] in ("sentinel", "cluster")


def shard_urls(url: str) -> list[str]:
    """One URL for each shard; the URL itself, where there is one shard."""
    parts = split_url(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not is_cluster(url) or (shards := _shards(options.pop(_SHARDS, "1"))) == 1:
        return [url]
    tag = options[_TAG]
    return [
        parts._replace(query=urlencode(options | {_TAG: of_shard(tag, shard)})).geturl()
        for shard in range(shards)
    ]


def of_shard(tag: str, shard: int) -> str:
    """The hash tag of one shard of many. CRC16 places tags that differ in the last digit only at
    multiples of a quarter of all slots, so shards are spread over the nodes.
    """
    return f"{tag}.{shard}"


def is_cluster(url: str) -> bool:
    """Whether the URL is of a Cluster."""
    return split_url(url).scheme in ("redis+cluster", "rediss+cluster")


def tag_of(key: str) -> str:
    """The part of a key that decides its slot: the text in its first braces. Empty: the whole key
    decides.
    """
    found = re.search(r"\{([^}]*)\}", key)
    return found[1] if found else ""


def tagged(prefix: str) -> str:
    """The prefix with a hash tag: `{bridge}:` for an empty prefix, `{mine}:` for `mine:`."""
    return prefix if tag_of(prefix) else f"{{{prefix.rstrip(':') or 'bridge'}}}:"


def slot_of(tag: str) -> int:
    """The Cluster slot of all keys with this hash tag."""
    return crc16(tag) % SLOTS


def crc16(text: str) -> int:
    """CRC16 as Redis Cluster computes it (XMODEM)."""
    return binascii.crc_hqx(text.encode(), 0)


_KINDS = (
    "must be redis://host:port/db, rediss://… (TLS), unix:///path, "
    "redis+sentinel://host:port,host:port/name/db, redis+cluster://host:port,host:port, "
    "or the word embedded; in a password write @ as %40, / as %2F and # as %23"
)


def _node(text: str, port: int) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        host = unquote(parts.hostname or "")
        host.encode("idna")  # raises for a..b, which cannot be resolved
        number = port if parts.port is None else parts.port
    except ValueError:
        raise ValueError(_KINDS) from None
    if not host.isprintable() or not host or not number:
        raise ValueError(_KINDS)
    return Node(host, number)


def _no_path(path: str) -> bool:
    return not path or "\0" in unquote(path)


def _path(topology: Topology, path: str) -> tuple[str, int]:
    """The name of the set, and the number of the database, from the URL's path."""
    parts: Sequence[str] = [unquote(part) for part in path.split("/")[1:]]
    if topology is Topology.CLUSTER:
        if parts not in ([], [""], ["0"]):
            raise ValueError("must end with the last node or /0: a Cluster has database 0 only")
        return "", 0
    if not parts or not parts[0] or len(parts) > 2:
        raise ValueError(
            "must name the set that the Sentinels watch: redis+sentinel://host:26379/mymaster/0"
        )
    return parts[0], _database(parts[1] if len(parts) == 2 else "")


def _database(text: str) -> int:
    if not re.fullmatch(r"\d{0,5}", text):
        raise ValueError(_KINDS)
    return int(text or "0")


def _plain(
    login: str,
    node: Node,
    database: int,
    options: Sequence[tuple[str, str]],
    tls: Sequence[tuple[str, str]] | None,
) -> str:
    query = urlencode([*options, *(tls or ())])
    scheme = "redis" if tls is None else "rediss"
    return f"{scheme}://{login}{node}/{database}{'?' if query else ''}{query}"


def _login(username: str, password: str) -> str:
    return f"{quote(username, '')}:{quote(password, '')}@" if username or password else ""


def _shards(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d?", text):
        raise ValueError("has an invalid number of shards: set redis.shards")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"has a {name} that is neither true nor false")
    return text.lower() == "true"
