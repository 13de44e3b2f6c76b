"""The demo's plan: markets, streams, the bridge's configuration, each part's command (pure)."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.runtime.config import EMBEDDED
from bridge.runtime.embedded import EmbeddedServer

INSTANCE = "demo"
CONSUMERS = ("candles", "book", "orders", "tail")

_MODULE = ("-P", "-m")  # not from the current folder, which may hold a package of the same name

_SPOT = ("SOL_USDC", "BTC_USDC", "ETH_USDC")
_PERP = ("SOL_USDC_PERP", "BTC_USDC_PERP")
MARKETS = (*_SPOT, *_PERP)
_EVERYWHERE = ("trade", "depth", "bookTicker", "ticker", "kline.1m")
_ONCE = (
    "depth.200ms.SOL_USDC",
    "depth.600ms.SOL_USDC",
    "depth.1000ms.SOL_USDC",
    "kline.1s.SOL_USDC",
    "liquidation",
    "externalTicker.SOL_USDC",
    "stockPrice.NVDA",
    "stockIndicativeQuote.NVDA",
    "account.orderUpdate",
    "account.positionUpdate",
    "account.balanceUpdate",
    "account.rfqUpdate",
)
# Streams with a message each second at least, so that even a short demo must receive them.
NEVER_QUIET = ("trade", "depth", "bookTicker", "ticker", "markPrice", "kline.1s")

# The first pair printed in the exchange's Python guide: publicly known, accepted by the simulator,
# refused by the bridge for the real exchange.
_DEMO_KEYS = {
    "PUBLIC_KEY": "zDIJj9qneWIY0IYZ5aXoHcNMCm+XDhVcTssiT0HyY0A=",
    "SECRET_KEY": "4odxgSUxFrC/zsKWZF4OQwYAgnNu9hnWH3NxWfLAPz4=",
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses by which the parts connect."""

    redis_folder: Path  # of the embedded server, which all parts join
    simulator: str  # host:port


def configuration(at: Addresses) -> str:
    """The demo's config.yaml (JSON is YAML)."""
    return json.dumps(
        {
            "instance": INSTANCE,
            "exchange": {"ws_url": f"ws://{at.simulator}", "rest_url": f"http://{at.simulator}"},
            "redis": {"url": EMBEDDED},
            "embedded": {"data_dir": str(at.redis_folder)},
            "streams": [
                {"types": _EVERYWHERE, "markets": MARKETS},
                {"types": ["markPrice", "openInterest"], "markets": _PERP},
                *_ONCE,
            ],
            "log": {"format": "json"},
        },
        indent=2,
    )


def simulator_command(python: str, rate: float) -> list[str]:
    """The simulator's command, on a free port."""
    return [python, *_MODULE, "simulator", "--port", "0", "--rate", f"{rate:g}"]


def bridge_command(python: str, config: Path) -> list[str]:
    return [python, *_MODULE, "bridge", "run", "--config", str(config)]


def consumer_command(python: str, config: Path, name: str) -> list[str]:
    """The command of a worker of the sample consumer `name`, in a group of that name."""
    options = ["--config", str(config), "--name", "demo"]
    if name == "candles":
        options += ["-o", "intervals=1m,1s"]  # for candles within seconds
    return [python, *_MODULE, "consumers", "run", name, *options]


def environment(given: Mapping[str, str], root: Path, *, with_keys: bool) -> dict[str, str]:
    """A child's environment, without settings and keys of a real bridge, and without proxies."""
    kept = {
        name: value
        for name, value in given.items()
        if not name.startswith("BRIDGE_")
        and name.removesuffix("_FILE") not in _DEMO_KEYS
        and not name.lower().endswith("_proxy")  # all parts are on this machine
    }
    paths = [str(root), *filter(None, [given.get("PYTHONPATH")])]
    kept |= {"PYTHONPATH": ":".join(paths), "PYTHONUNBUFFERED": "1"}
    return kept | (_DEMO_KEYS if with_keys else {})


def watch_commands(server: EmbeddedServer, bridge: str) -> Sequence[str]:
    """Lines to copy into another terminal; `bridge` is the prefix of the bridge's commands."""
    lines = [f"export {server.joining}", f"{bridge} tap 'trade.*'"]
    if shutil.which("redis-cli"):
        lines.append(f"{server.redis_cli} XREVRANGE trade.SOL_USDC + - COUNT 1")
    return lines
