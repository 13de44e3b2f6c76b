"""Whether the configured markets exist.

The exchange answers a subscription to a mistyped symbol with silence, so names are compared with
its list of markets. Not all names are in that list: RFQ-only symbols are left out of it, stock
streams use bare tickers. Those are not called wrong.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import httpx

from bridge.contract.streams import Stream, StreamType, parse_stream
from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.nearest import nearest

SUBJECT = "markets"
_UNLISTED_TYPES = {
    StreamType.STOCK_PRICE,
    StreamType.STOCK_INDICATIVE_QUOTE,
    StreamType.EXTERNAL_TICKER,
    StreamType.RFQ_UPDATE,
}
_DERIVATIVES_ONLY = {StreamType.MARK_PRICE, StreamType.OPEN_INTEREST}


@dataclass(frozen=True, slots=True)
class Market:
    """What the list says of a market, as far as it matters here."""

    symbol: str
    kind: str = ""
    book_state: str = ""


async def look_at_markets(
    rest_url: str, stream_names: Iterable[str], timeout_s: float
) -> list[Finding]:
    """Findings about all market names; an exchange out of reach is no failure."""
    try:
        markets = await _fetch(rest_url, timeout_s)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as error:
        reason = str(error) or type(error).__name__
        return [
            Finding(
                Level.NOT_CHECKED,
                SUBJECT,
                f"the list at {rest_url} could not be read: {reason}",
                "a mistyped market would stay silent: check again when the exchange is in reach",
            )
        ]
    return judge_markets([parse_stream(name) for name in stream_names], markets)


def judge_markets(streams: Iterable[Stream], markets: Mapping[str, Market]) -> list[Finding]:
    """One finding for each name that is not listed or not trading, and one for all others."""
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


def _by_listing(streams: Iterable[Stream]) -> tuple[dict[str, set[StreamType]], list[str]]:
    listed: dict[str, set[StreamType]] = {}
    unlisted: dict[str, None] = {}
    for stream in streams:
        if not stream.symbol:
            continue
        if stream.type in _UNLISTED_TYPES or stream.symbol.endswith("_RFQ"):
            unlisted[stream.name] = None
        else:
            listed.setdefault(stream.symbol, set()).add(stream.type)
    return listed, list(unlisted)


def _judge(symbol: str, types: set[StreamType], markets: Mapping[str, Market]) -> Iterator[Finding]:
    market = markets.get(symbol)
    if market is None:
        near = nearest(symbol, markets)
        advice = f"did you mean {' or '.join(near)}?" if near else "look at the exchange's markets"
        yield Finding(Level.WRONG, SUBJECT, f"{symbol} is not listed by the exchange", advice)
        return
    if market.book_state == "Closed":
        found = f"{symbol} is closed for trading"
        yield Finding(Level.WARNING, SUBJECT, found, "expect its streams to be silent")
    silent = sorted(types & _DERIVATIVES_ONLY)
    if market.kind == "SPOT" and silent:
        found = f"{symbol} is a spot market, without {' and '.join(silent)}"
        yield Finding(Level.WARNING, SUBJECT, found, f"use {symbol}_PERP for these")


async def _fetch(rest_url: str, timeout_s: float) -> dict[str, Market]:
    async with httpx.AsyncClient(timeout=timeout_s) as client:
        reply = await client.get(f"{rest_url}/api/v1/markets")
        reply.raise_for_status()
        listing = reply.json()
    if not isinstance(listing, list) or not listing:
        raise ValueError("the reply is no list of markets")
    markets = [_market(each) for each in listing if isinstance(each, dict)]
    return {market.symbol: market for market in markets}


def _market(listed: Mapping[str, object]) -> Market:
    fields = (listed.get(name) for name in ("symbol", "marketType", "orderBookState"))
    return Market(*(str(value or "") for value in fields))
