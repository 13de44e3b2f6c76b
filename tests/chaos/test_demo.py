"""The demo's faults: each one breaks something, is recovered, and loses no trade; and other tests
that need a demo of their own.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bridge.runtime.embedded import find_embedded
from demo.breaking import LEVERS
from tests.support.demo_run import START_S, running_demo
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).resolve().parents[2]


def head(client: httpx2.Client) -> Any:
    """The head that all pages of the demo's console show."""
    with client.stream("GET", "/events", params={"page": "gaps"}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                return json.loads(line.removeprefix("data: "))
    raise AssertionError("the console printed nothing")


def test_demo_faults_recover_and_lose_no_trade(tmp_path: Path) -> None:
    with running_demo(tmp_path, RATE="100") as demo:
        pids = demo.until_up()
        found = re.search(r"(http://\S+)/#token=(\w+)", demo.output())
        assert found
        address, token = found.groups()
        with httpx2.Client(base_url=address, trust_env=False, timeout=30) as client:
            assert [name for name, _, _ in head(client)["levers"]] == [one.name for one in LEVERS]
            assert client.post("/api/levers/bridge", headers={"origin": address}).status_code == 401
            ours = {"origin": address, "authorization": f"Bearer {token}"}
            for lever in LEVERS:
                assert client.post(f"/api/levers/{lever.name}", headers=ours).status_code == 200
                eventually(
                    lambda: head(client)["state"].startswith("nothing is broken"),
                    f"the fault {lever.name} has ended",
                    60.0,
                )
            eventually(
                lambda: re.search(r"[1-9]\d* recovered", head(client)["state"]),
                "missed trades are recovered",
            )
        demo.process.send_signal(signal.SIGTERM)
        assert demo.until_ended() == 0, demo.output()
        demo.nothing_left(pids)
    verdict = re.search(r"the exchange says ([\d,]+) trades: 0 lost, 0 doubled", demo.output())
    assert verdict, demo.output()
    assert int(verdict.group(1).replace(",", "")) > 20


def test_demo_killed_redis_ends_it_and_is_named_with_its_log(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        assert find_embedded(demo.folder / "redis")
        os.kill(pids["redis"], signal.SIGKILL)
        demo.ends_because_of("Redis", pids)


def test_the_chart_example_draws_what_a_demo_has_published(tmp_path: Path) -> None:
    """As in docs/samples.md, with a running demo and the address that it prints."""
    chart = [sys.executable, "examples/chart.py", "SOL_USDC", "--out", str(tmp_path / "chart.png")]
    with running_demo(tmp_path) as demo:
        demo.until_up()
        [exported] = re.findall(r"^\s*export (.+)$", demo.output(), flags=re.MULTILINE)
        address = dict(word.split("=", 1) for word in shlex.split(exported))
        subprocess.run(chart, cwd=ROOT, env={**os.environ, **address}, check=True, timeout=120)
        demo.process.send_signal(signal.SIGTERM)
        assert demo.until_ended() == 0, demo.output()

    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_ctrl_c_leaves_at_once_without_orphans(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        pids = demo.until_up()
        os.killpg(pids["tail"], signal.SIGSTOP)  # a part that does not react to SIGTERM
        demo.process.send_signal(signal.SIGINT)
        eventually(lambda: "Stopping: " in demo.output(), "the demo stops")
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(8) == 130  # a part has 10 s to stop
        demo.nothing_left(pids)
        assert "Traceback" not in demo.output()


def test_ctrl_c_while_starting_leaves_nothing(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        eventually(lambda: "simulator" in demo.pids(), "the simulator has started", START_S)
        demo.process.send_signal(signal.SIGINT)
        assert demo.until_ended() == 130, demo.output()
        demo.nothing_left(demo.pids())
        assert "Traceback" not in demo.output()
