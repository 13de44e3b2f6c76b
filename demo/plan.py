"""What the demo runs: markets, streams, the bridge's configuration, each part's command (pure)."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INSTANCE = "demo"
CONSUMERS = ("candles", "book", "orders", "tail")

_SPOT = ("SOL_USDC", "BTC_USDC", "ETH_USDC")
_PERP = ("SOL_USDC_PERP", "BTC_USDC_PERP")
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
# What speaks at least each second, so that a demo of seconds must have heard it.
NEVER_QUIET = ("trade", "depth", "bookTicker", "ticker", "markPrice", "kline.1s")

# The first pair printed in the exchange's Python guide: known to the world, accepted by the
# simulator, refused by the bridge for the real exchange.
_DEMO_KEYS = {
    "PUBLIC_KEY": "zDIJj9qneWIY0IYZ5aXoHcNMCm+XDhVcTssiT0HyY0A=",
    "SECRET_KEY": "4odxgSUxFrC/zsKWZF4OQwYAgnNu9hnWH3NxWfLAPz4=",
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts find each other."""

    redis_url: str
    simulator: str  # host:port


def configuration(at: Addresses) -> str:
    """The demo's config.yaml (JSON is YAML)."""
    return json.dumps(
        {
            "instance": INSTANCE,
            "exchange": {"ws_url": f"ws://{at.simulator}", "rest_url": f"http://{at.simulator}"},
            "redis": {"url": at.redis_url},
            "streams": [
                {"types": _EVERYWHERE, "markets": [*_SPOT, *_PERP]},
                {"types": ["markPrice", "openInterest"], "markets": _PERP},
                *_ONCE,
            ],
            "log": {"format": "json"},
        },
        indent=2,
    )


def simulator_command(python: str, rate: float) -> list[str]:
    """The exchange on a free port."""
    return [python, "-m", "simulator", "--port", "0", "--rate", f"{rate:g}"]


def bridge_command(python: str, config: Path) -> list[str]:
    return [python, "-m", "bridge", "run", "--config", str(config)]


def consumer_command(python: str, config: Path, name: str) -> list[str]:
    """A worker of the sample consumer `name`, called like its group."""
    return [python, "-m", "consumers", "run", name, "--config", str(config), "--name", "demo"]


def environment(given: Mapping[str, str], root: Path, *, with_keys: bool) -> dict[str, str]:
    """A child's environment: nothing of a real bridge reaches it, settings and keys left out."""
    kept = {
        name: value
        for name, value in given.items()
        if not name.startswith("BRIDGE_") and name not in _DEMO_KEYS
    }
    paths = [str(root), *filter(None, [given.get("PYTHONPATH")])]
    kept |= {"PYTHONPATH": ":".join(paths), "PYTHONUNBUFFERED": "1"}
    return kept | (_DEMO_KEYS if with_keys else {})


def ways_to_look(redis_url: str, python: str) -> Sequence[str]:
    """Lines that can be copied to another terminal."""
    port = redis_url.rpartition(":")[2].partition("/")[0]
    lines = [f"BRIDGE_REDIS__URL={redis_url} {python} -m bridge tap 'trade.*'"]
    if shutil.which("redis-cli"):
        lines.append(f"redis-cli -p {port} XREVRANGE trade.SOL_USDC + - COUNT 1")
    return lines
