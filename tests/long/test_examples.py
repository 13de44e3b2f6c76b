"""The examples as a user runs them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.command import ROOT, environment
from tests.support.consumer_entries import entry_id, gap, trade

LIMIT_S = 150  # matplotlib may first search for fonts, and print that

pytestmark = pytest.mark.timeout(LIMIT_S + 30)

PNG = b"\x89PNG\r\n\x1a\n"


def chart(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples/chart.py"), *arguments],
        cwd=folder,
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_chart_is_drawn_from_data_in_redis(tmp_path: Path, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        seconds, micros = client.time()  # type: ignore[misc]
        now_us: Any = seconds * 1_000_000 + micros
        client.xadd("trade.SOL_USDC", gap(0), id=entry_id(now_us - 61_000_000, 0, 1))  # type: ignore[arg-type]
        for n in range(1, 61):
            at_us = now_us - (61 - n) * 1_000_000
            fields: Any = trade(n, at_us, price=f"{100 + n % 7}.5")
            client.xadd("trade.SOL_USDC", fields, id=entry_id(at_us, n))
    ended = chart(tmp_path, redis_url, "SOL_USDC", "--minutes", "2", "--out", "made.png")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "made.png").read_bytes().startswith(PNG)


def test_chart_of_a_market_without_trades_prints_one_sentence(
    tmp_path: Path, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset("bridge:streams", "trade.SOL_USDC", "{}")
    ended = chart(tmp_path, redis_url, "SOL_USDC")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "no trade of SOL_USDC in the last 15 minutes"
