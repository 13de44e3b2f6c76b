"""`python -m benchmarks` completes with figures on a small workload."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import rows
from benchmarks.ground import Ground
from benchmarks.workload import load, make

ROOT = Path(__file__).resolve().parents[2]


def bench(**variables: str) -> str:
    """The output of a small run."""
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "BENCH_ROUNDS": "1", "BENCH_MESSAGES": "300"} | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return process.stdout


@pytest.mark.parametrize(
    "only",
    [
        "linger_ms: 1",
        "kit, ordered: position committed in batches",
        "audit, of trades in Redis and in the journal",
    ],
)
def test_row_is_measured(only: str) -> None:
    printed = bench(BENCH_ONLY=only)

    figures = re.findall(
        rf"^\| (?:bridge, )?{re.escape(only)} \| ([\d,]+) \| ", printed, re.MULTILINE
    )
    assert len(figures) >= 1


def test_stages_of_a_message_are_measured() -> None:
    printed = bench(BENCH_ONLY="stages")

    assert len(re.findall(r"^\| [a-z, ]+ \| -?\d+\.\d \|$", printed, re.MULTILINE)) == 6


def test_a_row_that_cannot_be_measured_states_the_reason() -> None:
    without_tools = Path(sys.executable).parent.as_posix()

    printed = bench(BENCH_ONLY="redis-benchmark", PATH=without_tools)

    assert "| skipped: neither redis-benchmark nor valkey-benchmark is on the PATH" in printed


def test_workload_is_equal_for_every_program(tmp_path: Path) -> None:
    made = make(500)
    made.save(tmp_path / "workload")

    assert load(tmp_path / "workload") == made
    assert sum(made.counts.values()) == len(made.frames) == 500


def test_a_row_that_is_registered_is_measured_in_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_rows", [])

    @rows.row("consumers", "nothing at all")
    def nothing(ground: Ground) -> rows.Sample:
        raise NotImplementedError

    assert rows.Row("consumers", "nothing at all", nothing) in rows.all_rows()
