"""`python -m benchmarks` prints figures or a reason for each row, on a small workload."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.rows import all_rows

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)


def test_every_row_and_the_start_come_to_figures_or_a_reason() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "BENCH_ROUNDS": "1", "BENCH_MESSAGES": "300"},
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )

    cells = [line.split("|") for line in process.stdout.splitlines() if line.startswith("| ")]
    rows = {one[1].strip(): one[2].strip() for one in cells}
    for row in all_rows():
        assert rows[row.name].replace(",", "").isdigit() or "skipped: " in rows[row.name], row.name

    assert re.findall(
        r"^\| bridge, 5\d\d streams \| \d+\.\d\d \| \d+\.\d\d \|$", process.stdout, re.MULTILINE
    )
