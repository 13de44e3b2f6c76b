"""Third-party clients of the exchange with the simulator; only the URLs differ.

They require other packages than the bridge. Their environment is created on demand from
requirements/clients.txt.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulator_client import PUBLIC_KEY, SECRET_KEY
from tests.support.simulator_process import running_simulator_sync

pytestmark = pytest.mark.timeout(400)
ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "clients.txt"
SCRIPTS = ROOT / "tests" / "support" / "clients"
ORDER = {
    "clientId", "createdAt", "executedQuantity", "executedQuoteQuantity", "id", "orderType",
    "quantity", "selfTradePrevention", "side", "status", "stopLossLimitPrice",
    "stopLossTriggerBy", "stopLossTriggerPrice", "strategyId", "symbol", "systemOrderType",
    "takeProfitLimitPrice", "takeProfitTriggerBy", "takeProfitTriggerPrice", "timeInForce",
    "triggerBy", "triggerPrice", "triggerQuantity",
}  # fmt: skip
PAST_ORDER = ORDER | {"expiryReason", "postOnly", "price", "quoteQuantity"}


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of the clients' environment; skips the test if they cannot be installed."""
    place = Path(sys.prefix) / "clients"
    made_of = place / "made-of"
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    with (Path(sys.prefix) / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made_of.exists() or made_of.read_text() != digest:
            venv.create(place, clear=True, with_pip=False, symlinks=True)
            pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python")]
            wanted = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK)]
            quietly = ["-q", "--disable-pip-version-check", "--no-compile"]
            done = subprocess.run(
                [*pip, "install", *quietly, *wanted], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"the clients cannot be installed: {done.stderr.strip()[-300:]}")
            made_of.write_text(digest)
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    with running_simulator_sync("--rate", "200", "--seed", "3") as running:
        yield running.rest_url, running.ws_url


def results_of(python: Path, urls: tuple[str, str], script: str) -> dict[str, Any]:
    """The results that a client's script printed."""
    done = subprocess.run(
        [python, SCRIPTS / script, *urls, PUBLIC_KEY, SECRET_KEY],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_ccxt_reads_markets_prices_the_account_and_streams(
    python: Path, urls: tuple[str, str]
) -> None:
    found = results_of(python, urls, "with_ccxt.py")

    assert (
        found["markets"].items()
        >= {
            "SOL/USDC": "spot",
            "SOL/USDC:USDC": "swap",
            "AAPL.US.RFQ/USDC": "spot",  # a security
        }.items()
    )
    assert found["currencies"] == ["BTC", "ETH", "SOL", "USDC", "USDT"]
    assert found["status"] == "ok"
    assert found["tickers"] == ["SOL/USDC", "SOL/USDC:USDC"]
    assert len(found["book"]) == len(found["trades"]) == 5
    assert 0 < found["ticker"] < 1000
    assert all(low <= high for _, _, high, low, _, _ in found["marks"] + found["candles"])
    assert found["interest"] > 0
    assert found["balance"] > 0
    assert set(found["open"]) <= {"open"}
    assert {"closed", "canceled", "open"} >= set(found["orders"]) != set()
    assert found["watched_book"][0] > 0
    assert found["watched_order"]


def test_bpx_py_reads_markets_and_the_account(python: Path, urls: tuple[str, str]) -> None:
    found = results_of(python, urls, "with_bpx.py")

    assert [asset["symbol"] for asset in found["assets"]] == ["SOL", "USDC", "BTC", "ETH", "USDT"]
    assert len(found["markets"]) == 9
    assert found["account"]["spotMakerFee"] == "8"
    assert found["collateral"]["collateral"][0]["symbol"] == "USDC"
    assert found["depth"]["lastUpdateId"].isdigit()
    assert all(row.keys() >= ORDER for row in found["orders"])
    assert all(row.keys() >= {"imfFunction", "userId"} for row in found["positions"])
    assert found["history"]
    assert all(row.keys() == PAST_ORDER for row in found["history"])


def test_backpack_exchange_sdk_reads_markets_and_the_account(
    python: Path, urls: tuple[str, str]
) -> None:
    found = results_of(python, urls, "with_sdk.py")

    assert {token["blockchain"] for a in found["assets"] for token in a["tokens"]} == {"Solana"}
    assert found["mark_price"][0]["symbol"] == "SOL_USDC_PERP"
    assert found["account"].keys() >= {"futuresMakerFee", "leverageLimit", "limitOrders"}
    assert float(found["collateral"]["netEquity"]) > 0
    assert {row["symbol"].count("_") for row in found["history"]} == {1}  # SPOT was requested
    assert found["fills"]
    assert found["liquidated"] == []
