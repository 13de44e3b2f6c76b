"""Whether Redis is reachable, keeps streams safely, and allows the commands a bridge sends.

Writes only to temporary keys `<prefix>bridge:check:…` and deletes them. Reads settings from INFO,
which hosted servers allow where they refuse CONFIG.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from redis import exceptions
from redis.asyncio import Redis

from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.config import Durability
from bridge.runtime.masking import masked_text, masked_url
from bridge.runtime.primary import ACTIVE_ACTIVE, ACTIVE_REPLICA
from bridge.runtime.redis_client import connect
from bridge.runtime.redis_trouble import connect_advice
from bridge.runtime.redis_url import LOGIN_ADVICE, Node, Topology, parse_redis_url
from bridge.runtime.refusals import Refusal, meaning
from bridge.runtime.urls import split_url

SUBJECT = "redis"
MEANING = {
    "memory": "in the memory of the primary",
    "replica": "on replicas too",
    "fsynced": "on the disk of the primary",
}
OLDEST_VERSION = (6, 2)
_COVERAGE = "cluster-require-full-coverage"
_SCRIPT = "return redis.call('XADD', KEYS[1], '*', 'a', ARGV[1])"
_QUESTIONS = {
    "replica": (("WAIT", "0", "1"),),
    "fsynced": (("WAITAOF", "0", "0", "1"),),
}
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


async def check_redis(
    url: str,
    *,
    key_prefix: str,
    connect_timeout_s: float,
    command_timeout_s: float,
    needed: int,
    durability: Durability,
    is_shard: bool = False,
) -> list[Finding]:
    """All findings about the server; `needed` is the memory that retention allows, in bytes.
    `is_shard`: the server is one of several shards.
    """
    client = connect(
        url,
        name="bridge:check",
        decode_responses=True,
        connect_timeout_s=connect_timeout_s,
        command_timeout_s=command_timeout_s,
    )
    async with client:
        refusal = await _refusal(client, url)
        if refusal is not None:
            return [refusal, *judge_tls(url), _see_above()]
        info = await _info(client)
        peer, role = await _peer(client), await _role(client)
        wrong = judge_kind(url, peer, info, role)
        if wrong is not None:
            return [wrong, *judge_tls(url), _see_above()]
        may_configure = not await _tried(client, "CONFIG", "GET", "appendonly")
        settings = [*judge_info(info, needed), *judge_durability(info, durability)] if info else []
        return [
            Finding(
                Level.OK, SUBJECT, f"{masked_url(url)} answers: {describe_server(url, peer, info)}"
            ),
            *judge_tls(url),
            *(settings if may_configure else map(_without_config, settings)),
            *([] if info else [_no_info()]),
            *(await _check_coverage(client) if is_shard else []),
            *await _check_rights(client, key_prefix, durability),
            await _check_groups(client, key_prefix),
        ]


def _see_above() -> Finding:
    return Finding(Level.NOT_CHECKED, "redis settings and rights", "see above")


async def _peer(client: Redis) -> str:
    """The address that the client is connected to: `host:port` or a socket path."""
    connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
    await client.connection_pool.release(connection)
    where = (getattr(connection, "host", ""), getattr(connection, "port", 0))
    return str(Node(*where)) if where[0] else str(getattr(connection, "path", ""))


async def _role(client: Redis) -> Any:
    with contextlib.suppress(exceptions.RedisError, OSError):
        return await client.execute_command("ROLE")  # type: ignore[no-untyped-call]
    return None


def judge_kind(url: str, peer: str, info: Mapping[str, Any], role: Any) -> Finding | None:
    """A problem where this kind of server cannot keep streams. `role` is the reply to ROLE."""
    topology = parse_redis_url(url).topology
    mode = info.get("redis_mode", "")
    if mode == "sentinel" or (role and role[0] == "sentinel"):
        watched = (role[1][0] if role and len(role) > 1 and role[1] else "") or "<name of the set>"
        advice = f"redis.url: redis+sentinel://{peer}/{watched}/0"
        return _problem("this is a Sentinel, which keeps no data", advice)
    if mode == "cluster" and topology is Topology.SERVER:
        found = "this is a node of a Cluster: it has some of the keys only"
        return _problem(found, f"redis.url: redis+cluster://{peer}")
    if info.get("role") == "slave" or (role and role[0] == "slave"):
        primary = (info.get("master_host"), info.get("master_port")) if info else role[1:3]
        found = "this is a replica, which takes no writes"
        return _problem(found, "use its primary, {}:{}".format(*primary))
    if ACTIVE_REPLICA in (info.get("role"), role[0] if role else ""):
        return _problem(
            ACTIVE_ACTIVE, "write to one region only, to a database that is not active-active"
        )
    return None


def describe_server(url: str, peer: str, info: Mapping[str, Any]) -> str:
    """Kind and address of the server, for people."""
    parsed = parse_redis_url(url)
    if parsed.topology is Topology.SENTINEL:
        return f"{peer} is the primary of {parsed.service}, by the Sentinels"
    if parsed.topology is Topology.CLUSTER:
        return f"{peer} has the slot of {{{parsed.tag}}} in this Cluster"
    replicas = int(info.get("connected_slaves", 0))
    return f"one server, with {replicas} replicas" if replicas else "one server"


def _without_config(finding: Finding) -> Finding:
    """Changes advice with CONFIG SET where CONFIG is refused by a service or by access rights."""
    if "CONFIG SET" not in finding.advice:
        return finding
    advice = "set it where this server is configured: this user, or service, has no CONFIG"
    return replace(finding, advice=advice)


async def _refusal(client: Redis, url: str) -> Finding | None:
    """The finding that ends the checks, where the server cannot be used."""
    where = masked_url(url)
    try:
        await client.ping()
    except exceptions.BusyLoadingError:
        return Finding(Level.WARNING, SUBJECT, f"{where} is still loading its data", "wait for it")
    except exceptions.AuthenticationError as error:
        return _problem(f"{where} refuses the login: {masked_text(str(error))}", LOGIN_ADVICE)
    except (exceptions.RedisError, OSError) as error:
        reason = masked_text(str(error)) or type(error).__name__
        return _problem(f"{where} cannot be used: {reason}", connect_advice(reason, url))
    return None


async def _info(client: Redis) -> dict[str, Any]:
    try:
        return dict(await client.info())
    except (exceptions.RedisError, OSError):
        return {}


def _no_info() -> Finding:
    advice = "allow INFO, or check yourself: version 6.2 or newer, AOF on, policy noeviction"
    return Finding(Level.NOT_CHECKED, "redis settings", "the server did not answer INFO", advice)


def judge_tls(url: str) -> list[Finding]:
    """A warning where the URL turns off verification of the server's certificate."""
    options = {name: value.lower() for name, value in parse_qsl(split_url(url).query)}
    unverified = options.get("ssl_cert_reqs") in ("none", "optional")
    unnamed = options.get("ssl_check_hostname") in ("false", "no", "0", "f", "n")
    if not (unverified or unnamed):
        return []
    found = "redis.url turns off the verification of the server's certificate"
    advice = "take it out, and name your own authority's file: ?ssl_ca_certs=/path/ca.pem"
    return [Finding(Level.WARNING, "encryption", found, advice)]


def judge_info(info: Mapping[str, Any], needed: int) -> list[Finding]:
    """Version, persistence, eviction and memory, from the reply to INFO."""
    return [
        _version(info),
        _persistence(info),
        _eviction(str(info.get("maxmemory_policy", ""))),
        *_memory(int(info.get("maxmemory", 0)), needed),
    ]


def judge_durability(info: Mapping[str, Any], durability: Durability) -> list[Finding]:
    """Whether the server supports the configured `publish.durability`."""
    if durability.level == "replica":
        connected = int(info.get("connected_slaves", 0))
        if connected < durability.replicas:
            found = (
                f"{connected} of {durability.replicas} replicas are there: "
                "nothing would be published"
            )
            return [_problem(found, "connect replicas, or choose memory", "durability")]
    if durability.level == "fsynced":
        numbers = [int(part) for part in str(info.get("redis_version", "")).split(".")[:2] if part]
        if numbers < [7, 2]:
            advice = "use Redis 7.2 or newer, or Valkey, or choose replica or memory"
            return [_problem("this server has no WAITAOF", advice, "durability")]
        if not info.get("aof_enabled"):
            found = "fsynced needs the append-only file, which is off"
            return [_problem(found, "redis-cli CONFIG SET appendonly yes", "durability")]
    return [Finding(Level.OK, "durability", f"published means: {MEANING[durability.level]}")]


def _version(info: Mapping[str, Any]) -> Finding:
    redis_version = str(info.get("redis_version", ""))
    own = info.get("valkey_version")
    name = f"Valkey {own}" if own else f"Redis {redis_version}"
    numbers = tuple(int(part) for part in redis_version.split(".")[:2] if part.isdecimal())
    if len(numbers) < 2:
        return Finding(Level.NOT_CHECKED, "version", "the server does not report it")
    if numbers < OLDEST_VERSION:
        return _problem(f"{name} is too old", "use Redis 6.2 or newer, or Valkey", "version")
    return Finding(Level.OK, "version", name)


def _persistence(info: Mapping[str, Any]) -> Finding:
    if info.get("aof_enabled"):
        return Finding(Level.OK, "persistence", "append-only file is on")
    return Finding(
        Level.WARNING,
        "persistence",
        "append-only file is off: a crash of Redis loses entries",
        "redis-cli CONFIG SET appendonly yes, and appendonly yes in redis.conf",
    )


def _eviction(policy: str) -> Finding:
    if policy == "noeviction" or policy.startswith("volatile-"):
        return Finding(Level.OK, "eviction", f"{policy}: streams are never evicted")
    if not policy:
        return Finding(Level.NOT_CHECKED, "eviction", "the server does not report its policy")
    return _problem(
        f"{policy} deletes whole streams when memory is short",
        "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        "eviction",
    )


def _memory(limit: int, needed: int) -> list[Finding]:
    if not limit or needed <= limit:
        return []
    found = f"maxmemory is {limit >> 20} MB; retention may take {needed >> 20} MB"
    return [Finding(Level.WARNING, "memory", found, "raise maxmemory or lower retention")]


async def _check_coverage(client: Redis) -> list[Finding]:
    """A warning where one failed node stops the Cluster; empty where CONFIG GET is refused."""
    try:
        settings = await client.config_get(_COVERAGE)
    except (exceptions.RedisError, OSError):
        return []
    return judge_coverage(settings.get(_COVERAGE) or "")


def judge_coverage(value: str) -> list[Finding]:
    """A warning where one unavailable node stops all shards."""
    if value != "yes":
        return []
    found = f"{_COVERAGE} is yes: with one node unavailable, all shards refuse everything"
    advice = f"redis-cli CONFIG SET {_COVERAGE} no, and the same in redis.conf, on each node"
    return [Finding(Level.WARNING, "shards", found, advice)]


async def _check_rights(client: Redis, key_prefix: str, durability: Durability) -> list[Finding]:
    stream = f"{key_prefix}bridge:check:{secrets.token_hex(8)}"
    hashed, text = f"{stream}:hash", f"{stream}:string"
    attempts: tuple[tuple[str, ...], ...] = (
        ("XADD", stream, "*", "a", "b"),
        ("EXISTS", stream),
        ("TIME",),
        ("SCRIPT", "LOAD", _SCRIPT),
        ("EVALSHA", _SHA, "1", stream, "b"),
        ("XRANGE", stream, "-", "+", "COUNT", "1"),
        ("XREVRANGE", stream, "+", "-", "COUNT", "1"),
        ("XINFO", "STREAM", stream),
        ("XTRIM", stream, "MAXLEN", "~", "10"),
        ("HSET", hashed, "a", "b"),
        ("HGETALL", hashed),
        ("SET", text, "a", "NX"),
        ("GET", text),
        *_QUESTIONS.get(durability.level, ()),
        ("DEL", text),
        ("DEL", stream),
        ("DEL", hashed),
    )
    refused: dict[str, str] = {}
    for command, *arguments in attempts:
        reason = await _tried(client, command, *arguments)
        if reason:
            refused.setdefault(command, reason)
    if not refused:
        return [Finding(Level.OK, "rights", "all commands a bridge needs are allowed")]
    advice = " ".join(f"+{command.lower()}" for command in refused)
    rule = f"ACL SETUSER … ~{key_prefix}* {advice}"
    return [_rights_problem(refused, rule)]


async def _check_groups(client: Redis, key_prefix: str) -> Finding:
    """Whether the commands of consumers work: groups, and one read over several streams."""
    one = f"{key_prefix}bridge:check:{secrets.token_hex(8)}"
    other = f"{key_prefix}bridge:check:{secrets.token_hex(8)}"
    attempts = (
        ("XGROUP", "CREATE", one, "g", "0", "MKSTREAM"),
        ("XGROUP", "CREATE", other, "g", "0", "MKSTREAM"),
        ("XADD", one, "1-1", "a", "b"),
        ("XREADGROUP", "GROUP", "g", "c", "COUNT", "1", "STREAMS", one, other, ">", ">"),
        ("XREAD", "COUNT", "1", "STREAMS", one, other, "0", "0"),
        ("XPENDING", one, "g"),
        ("XACK", one, "g", "1-1"),
        ("DEL", one),
        ("DEL", other),
    )
    refused = {
        command: why for command, *rest in attempts if (why := await _tried(client, command, *rest))
    }
    return judge_groups(refused)


def judge_groups(refused: Mapping[str, str]) -> Finding:
    """What the refused commands mean for consumers; `refused` maps each to its reason."""
    subject = "consumers"
    if not refused:
        return Finding(Level.OK, subject, "groups, and reads over several streams, are allowed")
    if any("CROSSSLOT" in why or "same slot" in why for why in refused.values()):
        found = "one command may not read several streams: a proxy in front of a Cluster"
        return _problem(found, "give redis.key_prefix a hash tag, such as {bridge}:", subject)
    names, reason = ", ".join(refused), next(iter(refused.values()))
    if all(why.startswith("NoPermissionError") for why in refused.values()):
        found = f"this user may not run {names}"
        return Finding(Level.NOT_CHECKED, subject, found, "a bridge alone does not need it")
    return _problem(f"refused: {names} ({reason})", "consumers of the kit cannot work", subject)


async def _tried(client: Redis, command: str, *arguments: str) -> str:
    """The server's reason for refusing the command; empty where it accepts."""
    try:
        await client.execute_command(command, *arguments)  # type: ignore[no-untyped-call]
    except (exceptions.RedisError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _rights_problem(refused: Mapping[str, str], rule: str) -> Finding:
    reason = next(iter(refused.values()))
    found = f"refused: {', '.join(refused)} ({reason})"
    if reason.startswith("OutOfMemoryError"):
        return _problem(found, "raise maxmemory or lower retention", "rights")
    if meaning(reason) is Refusal.NOT_ALLOWED and not reason.startswith("NoPermissionError"):
        advice = (
            "this server, or a proxy before it, lacks a command that a bridge needs: use another"
        )
        return _problem(found, advice, "rights")
    if not reason.startswith("NoPermissionError"):
        return _problem(found, "see the server's log", "rights")
    return _problem(found, f"give the user these rights: {rule}", "rights")


def _problem(found: str, advice: str, subject: str = SUBJECT) -> Finding:
    return Finding(Level.PROBLEM, subject, found, advice)
