"""Whether the configured markets exist.

The exchange does not answer a subscription to a mistyped symbol, so names are compared with its
list of markets. A name of a kind that is not in the list is reported as not checked.
"""

from collections.abc import Iterable, Iterator

import httpx2

from bridge.contract.streams import Stream, StreamType
from bridge.errors import ConfigError
from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.http_client import fetch, http_client
from bridge.runtime.markets import PATH, Market, Markets, is_listed_type, read_markets
from bridge.runtime.nearest import nearest
from bridge.runtime.patterns import Pattern

SUBJECT = "markets"


async def fetch_markets(rest_url: str, timeout_s: float) -> Markets | Finding:
    """The exchange's list, or a finding with the reason why it could not be read."""
    try:
        async with http_client(rest_url, timeout_s) as client:
            return read_markets(await fetch(client, PATH, timeout_s))
    except ConfigError as error:
        found, _, advice = str(error).partition(": ")
        return Finding(Level.WRONG, "environment", found, advice)
    except (httpx2.HTTPError, ValueError) as error:
        reason = str(error) or type(error).__name__
        return Finding(
            Level.NOT_CHECKED,
            SUBJECT,
            f"the list at {rest_url} could not be read: {reason}",
            "a mistyped market would stay silent: check again when the exchange is in reach",
        )


def judge_markets(streams: Iterable[Stream], markets: Markets) -> list[Finding]:
    """One finding for each unlisted or closed market, and one for all the listed ones."""
    listed, unlisted = _by_listing(streams)
    findings = [finding for symbol in listed for finding in _judge(symbol, listed[symbol], markets)]
    wrong = {finding.found.split()[0] for finding in findings if finding.level is Level.WRONG}
    good = len(listed) - len(wrong)
    if good:
        findings.insert(0, Finding(Level.OK, SUBJECT, f"{good} of {len(listed)} are listed"))
    if unlisted:
        names = ", ".join(unlisted)
        findings.append(Finding(Level.NOT_CHECKED, SUBJECT, f"not in the exchange's list: {names}"))
    return findings


def judge_patterns(patterns: Iterable[Pattern], markets: Markets) -> list[Finding]:
    """How many markets each pattern matches now."""
    findings = []
    for pattern in patterns:
        count = len(list(pattern.streams(markets)))
        level = Level.OK if count else Level.WARNING
        advice = "" if count else "it is filled when the exchange lists such a market"
        found = f"{pattern.name} fits {count} markets now"
        findings.append(Finding(level, "patterns", found, advice))
    return findings


def _by_listing(streams: Iterable[Stream]) -> tuple[dict[str, set[StreamType]], list[str]]:
    listed: dict[str, set[StreamType]] = {}
    unlisted: dict[str, None] = {}
    for stream in streams:
        if is_listed_type(stream):
            listed.setdefault(stream.symbol, set()).add(stream.type)
        elif stream.symbol:
            unlisted[stream.name] = None
    return listed, list(unlisted)


def _judge(symbol: str, types: set[StreamType], markets: Markets) -> Iterator[Finding]:
    market = markets.get(symbol)
    if market is None:
        near = nearest(symbol, markets)
        advice = f"did you mean {' or '.join(near)}?" if near else "check the exchange's markets"
        yield Finding(Level.WRONG, SUBJECT, f"{symbol} is not listed by the exchange", advice)
        return
    if market.is_closed:
        found = f"{symbol} is closed for trading"
        yield Finding(Level.WARNING, SUBJECT, found, "expect its streams to be silent")
    if silent := sorted(kind for kind in types if not market.has(kind)):
        found = f"{symbol} is a spot market, without {' and '.join(silent)}"
        yield Finding(Level.WARNING, SUBJECT, found, f"use {symbol}_PERP for these")


__all__ = ["Market", "fetch_markets", "judge_markets", "judge_patterns"]
