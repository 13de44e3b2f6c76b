"""Whether Redis is there, is safe to keep streams in, and lets us do what a bridge does.

Writes only to throwaway keys `<prefix>bridge:check:…`, and deletes them. Judges settings from INFO,
which hosted servers give where they refuse CONFIG.
"""

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from redis import exceptions
from redis.asyncio import Redis

from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.config import Durability
from bridge.runtime.masking import masked_text, masked_url
from bridge.runtime.redis_client import connect

SUBJECT = "redis"
MEANING = {
    "memory": "in the memory of the primary",
    "replica": "on replicas too",
    "fsynced": "on the disk of the primary",
}
OLDEST_VERSION = (6, 2)
_SCRIPT = "return redis.call('XADD', KEYS[1], '*', 'a', ARGV[1])"
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


async def look_at_redis(
    url: str,
    *,
    key_prefix: str,
    connect_timeout_s: float,
    command_timeout_s: float,
    needed: int,
    durability: Durability,
) -> list[Finding]:
    """All findings about the server; `needed` is the memory that retention allows, in bytes."""
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
            return [refusal, Finding(Level.NOT_CHECKED, "redis settings and rights", "see above")]
        info = await _info(client)
        return [
            Finding(Level.OK, SUBJECT, f"{masked_url(url)} answers"),
            *(judge_info(info, needed) if info else [_no_info()]),
            *(judge_durability(info, durability) if info else []),
            *await _look_at_rights(client, key_prefix),
        ]


async def _refusal(client: Redis, url: str) -> Finding | None:
    """Why nothing more can be asked, if so."""
    where = masked_url(url)
    try:
        await client.ping()
    except exceptions.BusyLoadingError:
        return Finding(Level.WARNING, SUBJECT, f"{where} is still loading its data", "wait for it")
    except exceptions.AuthenticationError as error:
        return _problem(
            f"{where} refuses the login: {error}",
            "put user and password into redis.url (BRIDGE_REDIS__URL in .env): "
            "redis://user:password@host:port/0",
        )
    except (exceptions.RedisError, OSError) as error:
        return _problem(
            f"{where} cannot be used: {masked_text(str(error)) or type(error).__name__}",
            "start it, or `python -m bridge redis`, or set redis.url; a bridge waits for it",
        )
    return None


async def _info(client: Redis) -> dict[str, Any]:
    try:
        return dict(await client.info())
    except (exceptions.RedisError, OSError):
        return {}


def _no_info() -> Finding:
    advice = "allow INFO, or look yourself: version 6.2 or newer, AOF on, policy noeviction"
    return Finding(Level.NOT_CHECKED, "redis settings", "the server did not answer INFO", advice)


def judge_info(info: Mapping[str, Any], needed: int) -> list[Finding]:
    """Version, role, persistence, eviction and memory, from the reply to INFO."""
    return [
        _version(info),
        *_role(info),
        _persistence(info),
        _eviction(str(info.get("maxmemory_policy", ""))),
        *_memory(int(info.get("maxmemory", 0)), needed),
    ]


def judge_durability(info: Mapping[str, Any], wanted: Durability) -> list[Finding]:
    """Whether the server can do what `publish.durability` asks of it."""
    if wanted.level == "replica":
        there = int(info.get("connected_slaves", 0))
        if there < wanted.replicas:
            found = f"{there} of {wanted.replicas} replicas are there: nothing would be published"
            return [_problem(found, "connect replicas, or choose memory", "durability")]
    if wanted.level == "fsynced":
        numbers = [int(part) for part in str(info.get("redis_version", "")).split(".")[:2] if part]
        if numbers < [7, 2]:
            advice = "use Redis 7.2 or newer, or Valkey, or choose replica or memory"
            return [_problem("this server has no WAITAOF", advice, "durability")]
        if not info.get("aof_enabled"):
            found = "fsynced needs the append-only file, which is off"
            return [_problem(found, "redis-cli CONFIG SET appendonly yes", "durability")]
    return [Finding(Level.OK, "durability", f"published means: {MEANING[wanted.level]}")]


def _version(info: Mapping[str, Any]) -> Finding:
    spoken = str(info.get("redis_version", ""))
    own = info.get("valkey_version")
    name = f"Valkey {own}" if own else f"Redis {spoken}"
    numbers = tuple(int(part) for part in spoken.split(".")[:2] if part.isdecimal())
    if len(numbers) < 2:
        return Finding(Level.NOT_CHECKED, "version", "the server does not tell it")
    if numbers < OLDEST_VERSION:
        return _problem(f"{name} is too old", "use Redis 6.2 or newer, or Valkey", "version")
    return Finding(Level.OK, "version", name)


def _role(info: Mapping[str, Any]) -> list[Finding]:
    if info.get("role") != "slave":
        return []
    master = f"{info.get('master_host')}:{info.get('master_port')}"
    return [_problem("this is a replica, which takes no writes", f"use its master, {master}")]


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
        return Finding(Level.NOT_CHECKED, "eviction", "the server does not tell its policy")
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


async def _look_at_rights(client: Redis, key_prefix: str) -> list[Finding]:
    stream = f"{key_prefix}bridge:check:{secrets.token_hex(8)}"
    hashed, text = f"{stream}:hash", f"{stream}:string"
    attempts: tuple[tuple[str, ...], ...] = (
        ("XADD", stream, "*", "a", "b"),
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


async def _tried(client: Redis, command: str, *arguments: str) -> str:
    """Why the server refuses the command; empty where it does not."""
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
    if not reason.startswith("NoPermissionError"):
        return _problem(found, "see the server's log", "rights")
    return _problem(found, f"give the user these rights: {rule}", "rights")


def _problem(found: str, advice: str, subject: str = SUBJECT) -> Finding:
    return Finding(Level.PROBLEM, subject, found, advice)
