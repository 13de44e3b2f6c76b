"""The document shows every fault, every example works as printed, and wrong orders are reported."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from simulator.faults.reading import BY_NAME
from tests.support import plain_http
from tests.support.eventually import eventually
from tests.support.simulator_process import ROOT, running_simulator_sync

DOCUMENT = ROOT / "docs" / "simulator.md"
BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)


def examples() -> list[dict[str, object]]:
    lines = "".join(BLOCK.findall(DOCUMENT.read_text())).splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"fault"')]


def test_every_fault_is_shown() -> None:
    assert {example["fault"] for example in examples()} == set(BY_NAME)


def test_every_example_of_the_document_starts_as_printed() -> None:
    with running_simulator_sync("--rate", "100") as sim:
        for example in examples():
            reply = plain_http.post(f"{sim.rest_url}/simulator/faults", json=example)
            assert reply.status_code == 200, (example, reply.text)
            assert reply.json()["command"] == example
        known = plain_http.get(f"{sim.rest_url}/simulator/faults").json()
        assert [fault["command"] for fault in known] == examples()
        assert plain_http.delete(f"{sim.rest_url}/simulator/faults").status_code == 200
        known = plain_http.get(f"{sim.rest_url}/simulator/faults").json()
        assert [fault for fault in known if fault["ended_us"] is None] == []


def test_a_script_of_all_examples_is_played(tmp_path: Path) -> None:
    script, ledger = tmp_path / "faults.jsonl", tmp_path / "ledger.jsonl"
    lines = ["# all of them", ""]
    lines += [json.dumps({"at_s": 0.01 * n, **each}) for n, each in enumerate(examples(), 1)]
    script.write_text("\n".join(lines))
    with running_simulator_sync("--faults", str(script), ledger=ledger) as sim:
        url = f"{sim.rest_url}/simulator/faults"
        eventually(
            lambda: len(plain_http.get(url).json()) == len(examples()), "all faults have started"
        )
    documents = [json.loads(line) for line in ledger.read_text().splitlines()]
    begun = [line["fault"]["command"] for line in documents if line.get("state") == "began"]
    assert begun == examples()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            '{"fault":"dorp","stream":"trade.SOL_USDC"}',
            "no fault 'dorp'; did you mean drop?",
        ),
        ('{"stream":"trade.SOL_USDC"}', 'needs "fault", one of: drop, hide, '),
        ('{"fault":"drop"}', 'drop: needs "stream"'),
        (
            '{"fault":"drop","strem":"*","stream":"*"}',
            'no setting "strem"; did you mean stream?',
        ),
        (
            '{"fault":"drop","stream":"trades.SOL_USDC"}',
            "kind of stream; did you mean trade?",
        ),
        ('{"fault":"drop","stream":"depth.100ms.SOL_USDC"}', "one of: 1000ms, 200ms, 600ms"),
        ('{"fault":"drop","stream":"*","share":2}', '"share" is 2: input should be less than or'),
        ('{"fault":"corrupt","stream":"*","form":"odd"}', "'garbage', 'binary'"),
        ('{"fault":"delist","symbol":"NO_SUCH"}', "NO_SUCH is not listed; there are: SOL_USDC"),
        ('{"fault":"list","symbol":"SOL_USDC"}', "SOL_USDC is listed already"),
        ('{"fault":"list","symbol":"sol"}', "'sol' is not a market symbol"),
        ("[1]", 'a command is an object like {"fault":"drop"'),
        ("nonsense", "this is not JSON"),
        ('[{"fault":"drop","stream":"*"},{"fault":"skip","stream":"trade.NO_SUCH"}]', "not listed"),
    ],
)
def test_wrong_fault_order_is_refused_with_advice(body: str, expected: str) -> None:
    with running_simulator_sync("--rate", "0") as sim:
        reply = plain_http.post(f"{sim.rest_url}/simulator/faults", content=body)
        assert (reply.status_code, plain_http.get(f"{sim.rest_url}/simulator/faults").json()) == (
            400,
            [],
        )
        assert expected in reply.json()["message"]
