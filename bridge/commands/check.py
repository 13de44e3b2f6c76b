"""`python -m bridge check`: checks what can be checked before a run, and prints advice.

Collects findings and prints them; `runtime.checks` judges what is right or wrong.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bridge.commands.options import ConfigFile
from bridge.contract.streams import parse_stream
from bridge.errors import BridgeError
from bridge.protocol.signing import rest_headers
from bridge.runtime.checks.clock import check_clock
from bridge.runtime.checks.finding import Finding, Level, exit_code
from bridge.runtime.checks.journal import check_journal
from bridge.runtime.checks.keys import check_keys, request_signed
from bridge.runtime.checks.markets import fetch_markets, judge_markets, judge_patterns
from bridge.runtime.checks.memory import Need, memory_needs, total_bytes
from bridge.runtime.checks.redis_server import check_redis
from bridge.runtime.config import DEFAULT_FILE, Config, load_config
from bridge.runtime.keys import AccountKey
from bridge.runtime.markets import Markets
from bridge.runtime.masking import masked_text
from bridge.runtime.redis_client import resolve_url, urls_of_shards
from bridge.runtime.server_binary import find_server_binary
from bridge.runtime.share import Share
from bridge.runtime.terminal import new_console, printable

ENV_FILE = Path(".env")
SIGNED = ("/api/v1/capital", "balanceQuery")  # a request that every account may send
WINDOW_MS = 60_000
_COLOURS = {
    Level.OK: "green",
    Level.WARNING: "yellow",
    Level.NOT_CHECKED: "cyan",
    Level.PROBLEM: "red",
    Level.WRONG: "red",
}


def command(
    config: ConfigFile = None,
    show: Annotated[
        bool, typer.Option("--show", help="Also print the whole configuration in effect.")
    ] = False,
) -> None:
    """Check configuration, keys, streams and Redis; report problems, each with advice.

    Changes nothing: to test its rights in Redis it writes temporary keys `bridge:check:…` and
    deletes them. Unreachable services are marked "not checked". Secrets are masked in all output.

    Exit status: 0 fine or warnings only, 1 an outside system refuses (Redis, rights), 2 wrong
    configuration.

    Examples:

        python -m bridge check
        python -m bridge check --config deploy/live.yaml --show
    """
    loaded = load_config(config)
    console = new_console(None if sys.stdout.isatty() else 160)
    key, about_keys = check_keys(loaded, os.environ, ENV_FILE)
    around, markets = asyncio.run(_check_services(loaded, key))
    findings = [
        Finding(Level.OK, "configuration", _sources(config)),
        *_check_share(loaded.share.value),
        *about_keys,
        check_journal(loaded.journal),
        *around,
    ]
    share = loaded.share.value
    names = dict.fromkeys(loaded.my_stream_names) | dict.fromkeys(
        stream.name
        for pattern in loaded.stream_patterns
        for stream in pattern.streams(markets)
        if share is None or share.is_mine(stream)
    )
    for table in (
        _findings_table(findings),
        _streams_table(loaded, names),
        _memory_table(memory_needs(loaded, names)),
    ):
        title, table.title = table.title, None
        console.print(Text(str(title), style="italic"), soft_wrap=True)  # a table would wrap it
        console.print(table)
        console.print()
    if show:
        console.print(Text(yaml.safe_dump(loaded.masked(), sort_keys=False, allow_unicode=True)))
    raise typer.Exit(exit_code(findings))


def _check_share(share: Share | None) -> list[Finding]:
    if share is None:
        return []
    found = f"member {share.me} of {', '.join(share.members)}: what follows is its share of streams"
    return [Finding(Level.OK, "share", found)]


def _sources(config: Path | None) -> str:
    chosen = config or Path(DEFAULT_FILE)
    file = str(chosen) if chosen.exists() else f"no {chosen}, so defaults"
    return f"{file}; {ENV_FILE} {'read' if ENV_FILE.exists() else 'absent'}; environment read"


async def _check_services(config: Config, key: AccountKey | None) -> tuple[list[Finding], Markets]:
    """Findings about exchange and Redis, and the markets (empty where the list is unknown)."""
    exchange = config.exchange
    at = (exchange.rest_url, exchange.open_timeout_s)
    async with asyncio.TaskGroup() as tasks:
        listing = tasks.create_task(fetch_markets(*at))
        clock = tasks.create_task(check_clock(*at))
        server = tasks.create_task(_check_redis(config))
        signed = tasks.create_task(_try_key(key, *at)) if key else None
    markets = listing.result()
    rest = [clock.result(), *server.result()]
    account = [signed.result()] if signed else []
    if isinstance(markets, Finding):
        return [*account, markets, *rest], {}
    return [
        *account,
        *judge_markets([parse_stream(name) for name in config.stream_names], markets),
        *judge_patterns(config.stream_patterns, markets),
        *rest,
    ], markets


async def _try_key(key: AccountKey, rest_url: str, timeout_s: float) -> Finding:
    """Send one signed request, which only reads."""
    path, instruction = SIGNED
    now_ms = time.time_ns() // 1_000_000
    headers = rest_headers(key.public_key_b64, key.sign, instruction, {}, now_ms, WINDOW_MS)
    return await request_signed(rest_url, path, headers, timeout_s)


async def _check_redis(config: Config) -> list[Finding]:
    try:
        url = resolve_url(config)
    except BridgeError:
        return [_embedded_not_running()]
    needed = total_bytes(memory_needs(config, config.stream_names))
    urls = urls_of_shards(url)
    async with asyncio.TaskGroup() as tasks:
        checks = [
            tasks.create_task(
                check_redis(
                    one,
                    key_prefix=config.redis.keys.prefix_of(shard),
                    connect_timeout_s=config.redis.connect_timeout_s,
                    command_timeout_s=config.redis.command_timeout_s,
                    needed=needed // len(urls),
                    durability=config.publish.durability,
                    is_shard=len(urls) > 1,
                )
            )
            for shard, one in enumerate(urls)
        ]
    return list(each_once([check.result() for check in checks]))


def each_once(found: Sequence[Sequence[Finding]]) -> Iterator[Finding]:
    """All findings of the first shard; of each further shard its server and the problems that the
    first one does not have. With several shards, subjects name the shard.
    """
    reported: list[Finding] = []
    for number, findings in enumerate(found):
        for place, finding in enumerate(findings):
            is_known = finding in reported or (number and place and finding.level is Level.OK)
            if is_known:
                continue
            reported.append(finding)
            is_named = len(found) > 1 and (number or not place)
            subject = f"{finding.subject}, shard {number}" if is_named else finding.subject
            yield replace(finding, subject=subject)


def _embedded_not_running() -> Finding:
    try:
        binary = find_server_binary()
    except BridgeError as error:
        found, _, advice = str(error).partition(": ")
        return Finding(Level.PROBLEM, "redis", found, advice)
    found = f"embedded, and none runs now; it would be started from {binary}"
    return Finding(Level.NOT_CHECKED, "redis", found, "check again while it runs")


def _table(title: str, *headings: str) -> Table:
    return Table(*headings, title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)


def _findings_table(findings: list[Finding]) -> Table:
    table = _table("Check", "", "checked", "found", "what to do")
    for finding in findings:
        word = Level.PROBLEM if finding.level is Level.WRONG else finding.level
        cells = (finding.subject, finding.found, finding.advice)
        table.add_row(
            Text(word, style=_COLOURS[finding.level]),
            *(Text(masked_text(printable(cell))) for cell in cells),
        )
    return table


def _streams_table(config: Config, names: Iterable[str]) -> Table:
    title = (
        f"A bridge would receive {len(list(names))} streams from {config.exchange.ws_url} "
        f"over {config.exchange.connections} connection(s)"
    )
    table = _table(title, "type", "streams")
    by_type: dict[str, list[str]] = {}
    for name in names:
        by_type.setdefault(parse_stream(name).type.value, []).append(name)
    for kind, several in by_type.items():
        table.add_row(kind, Text(", ".join(several)))
    return table


def _memory_table(needs: list[Need]) -> Table:
    title = "What Redis keeps, and the memory it takes when full (estimate)"
    table = _table(title, "type", "streams", "entries each", "age", "memory")
    for column in table.columns[1:]:
        column.justify = "right"
    for need in needs:
        table.add_row(
            need.kind,
            str(need.streams),
            "any" if need.max_entries is None else f"{need.max_entries:,}",
            "any" if need.max_age_s is None else f"{need.max_age_s:,} s",
            "no limit" if need.total_bytes is None else _megabytes(need.total_bytes),
        )
    table.add_section()
    table.add_row("all", "", "", "", _megabytes(total_bytes(needs)))
    return table


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MB"
