"""The register of writers to Redis Streams and readers from them, with their commands.

A new peer is a small program in `programs/` and a row here.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from benchmarks.ground import ROOT

PYTHON = ROOT / ".venv-compare/bin/python"
PROGRAMS = "benchmarks.compare.programs."
VERSIONS_PROGRAM = """
import json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The addresses for a writer; its configuration is written to `folder`."""

    folder: Path
    ws_url: str
    rest_url: str
    redis_url: str
    markets: Sequence[str]


@dataclass(frozen=True, slots=True)
class Writer:
    """From the exchange to Redis. `key` is a market's stream (`{}` is the market, with `joint` for
    its underscores), `trade_id` extracts the exchange's number from an entry. `package`: the
    package that it requires, None for ours.
    """

    name: str
    package: str | None
    arguments: Sequence[str]
    key: str
    trade_id: Callable[[Mapping[str, str]], str | None]
    joint: str = "_"
    note: str = ""

    def key_of(self, market: str) -> str:
        return self.key.format(market.replace("_", self.joint))

    def command(self, place: Place) -> list[str]:
        """The command to start in `place.folder`; for the bridge, also writes its configuration."""
        if self.package is not None:
            urls = (place.ws_url, place.rest_url, place.redis_url)
            return [str(PYTHON), "-m", *self.arguments, *urls, *place.markets]
        config = {
            "exchange": {"ws_url": place.ws_url, "rest_url": place.rest_url},
            "redis": {"url": place.redis_url},
            "streams": [f"trade.{market}" for market in place.markets],
        }
        place.folder.mkdir(parents=True, exist_ok=True)
        (place.folder / "config.yaml").write_text(yaml.safe_dump(config))
        return [sys.executable, "-m", *self.arguments]


@dataclass(frozen=True, slots=True)
class Reader:
    """From Redis to a handler. `program` None: it cannot be run, for the reason in `note`."""

    name: str
    package: str | None
    program: str | None
    note: str = ""

    def command(self, redis_url: str, count: int, log: str) -> list[str]:
        python = sys.executable if self.package is None else str(PYTHON)
        return [python, "-m", f"{PROGRAMS}{self.program}", redis_url, str(count), log]


WRITERS = (
    Writer(
        "bridge", None, ("bridge", "run"), "trade.{}", lambda entry: entry.get("trade_id"),
        note="as shipped: each message validated, journal on, fsync each second",
    ),
    Writer(
        "loop, `await xadd`", "redis", (f"{PROGRAMS}loops", "awaited"), "awaited:trade.{}",
        lambda entry: entry["t"], note="websockets and redis-py, nothing validated",
    ),
    Writer(
        "loop, `Redis(host=…)`", "redis", (f"{PROGRAMS}loops", "retried"), "retried:trade.{}",
        lambda entry: entry["t"], note="the same; redis-py tries again by itself where it is given "
        "a host, and not where an URL, as in the other two",
    ),
    Writer(
        "loop, pipeline", "redis", (f"{PROGRAMS}loops", "pipelined"), "pipelined:trade.{}",
        lambda entry: entry["t"], note="the same, up to 256 messages a call",
    ),
    Writer(
        "ccxt pro + XADD", "ccxt", (f"{PROGRAMS}ccxt_xadd",), "ccxt:trade.{}",
        lambda entry: entry["id"],
        note="`watch_trades_for_symbols`, an `xadd` for each trade; of a burst it gives out a part",
    ),
    Writer(
        "cryptofeed", "cryptofeed", (f"{PROGRAMS}cryptofeed_stream",), "trades-BACKPACK-{}",
        lambda entry: entry["id"], joint="-",
        note="`TradeStream`; it has no Backpack, so with a feed of a few lines of ours; "
        "3.x, whose backend is another, needs Python 3.13, and older ones get 2.x",
    ),
    Writer(
        "nautilus_trader", "nautilus-trader", (f"{PROGRAMS}nautilus_bus",), "nautilus:trade.{}",
        lambda entry: json.loads(entry["payload"])["t"],
        note="only its message bus with Redis behind (flushed each 10 ms): it has no Backpack, so "
        "a loop with websockets in front, and no typed trades",
    ),
)  # fmt: skip
READERS = (
    Reader("kit, shared", None, "read_kit", "typed events"),
    Reader("redis-py", "redis", "read_plain", "XREADGROUP of 500, one XACK, nothing decoded"),
    Reader("FastStream", "faststream", "read_faststream", "a subscriber with a group"),
    Reader("taskiq-redis", None, None, "takes only tasks that its own broker has written"),
)


@cache
def versions() -> Mapping[str, str | None]:
    """Versions of the peers' packages in the peers' environment; None where missing."""
    names = sorted({each.package for each in (*WRITERS, *READERS) if each.package})
    if not PYTHON.exists():
        return dict.fromkeys(names)
    command = [str(PYTHON), "-c", VERSIONS_PROGRAM, *names]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    versions_found: dict[str, str | None] = json.loads(printed.stdout)
    return versions_found


def why_not(peer: Writer | Reader) -> str | None:
    """Why the peer cannot be run here; None where it can."""
    if isinstance(peer, Reader) and peer.program is None:
        return peer.note
    if peer.package is not None and versions()[peer.package] is None:
        return f"{peer.package} is not installed in {PYTHON.parents[1].name}: see `make compare`"
    return None


def title(peer: Writer | Reader) -> str:
    """The peer's name and version."""
    version = versions().get(peer.package or "")
    return f"{peer.name} ({peer.package} {version})" if version else peer.name
