"""The demo's row "break something": each thing breaks, mends itself, and costs no trade."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from demo.breaking import LEVERS
from tests.support.demo_run import running_demo
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(240)


def head(client: httpx2.Client) -> Any:
    """What every page of the demo's console shows above."""
    with client.stream("GET", "/events", params={"page": "gaps"}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                return json.loads(line.removeprefix("data: "))
    raise AssertionError("the console said nothing")


def test_what_is_broken_mends_itself_and_no_trade_is_lost(tmp_path: Path) -> None:
    with running_demo(tmp_path, RATE="100") as demo:
        pids = demo.until_up()
        found = re.search(r"(http://\S+)/#token=(\w+)", demo.said())
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
                    f"{lever.name} is mended",
                    60.0,
                )
            eventually(
                lambda: re.search(r"[1-9]\d* recovered", head(client)["state"]),
                "what was missed is recovered",
            )
        demo.process.send_signal(signal.SIGTERM)
        assert demo.until_ended() == 0, demo.said()
        demo.nothing_left(pids)
    told = re.search(r"the exchange says ([\d,]+) trades: 0 lost, 0 doubled", demo.said())
    assert told, demo.said()
    assert int(told.group(1).replace(",", "")) > 20
