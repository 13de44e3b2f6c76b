"""Setup of all tests: markers by folder, no sockets in unit tests, and a private Redis."""

import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from bridge.runtime import masking
from tests.support.consumer_bench import bench
from tests.support.examples import DEV_EXAMPLES
from tests.support.picky import picky
from tests.support.redis_server import redis_server, redis_url

__all__ = ["bench", "picky", "redis_server", "redis_url"]

HERE = Path(__file__).parent
FOLDERS_WITH_MARKER = ("unit", "integration", "long", "chaos")
# Modules whose tests run in one worker: they share an expensive setup, or their processes must keep
# up with an exchange, which only a few can do at a time on a slow machine.
ONE_WORKER = {
    "tests/long/test_no_gaps.py": "keeps up",
    "tests/long/test_faults.py": "keeps up",
    "tests/long/test_two_bridges.py": "two keep up",
    "tests/long/test_upgrade.py": "keeps up",
} | {
    module: module
    for module in (
        "tests/integration/deploy/test_acl.py",
        "tests/integration/redis/test_sets.py",
        "tests/integration/simulator/test_faults_on_connections.py",
        "tests/integration/simulator/test_faults_on_frames.py",
        "tests/integration/simulator/test_faults_on_rest.py",
        "tests/integration/simulator/test_python_guide.py",
        "tests/integration/simulator/test_rest_server.py",
        "tests/integration/simulator/test_socket.py",
        "tests/integration/view/test_console.py",
        "tests/long/test_console.py",
        "tests/long/test_node.py",
        "tests/long/test_sql.py",
        "tests/long/test_wheel.py",
        "tests/unit/test_shape.py",
    )
}

# A shell starts its background processes with SIGINT ignored, and they would pass that on to the
# processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # during collection, where it would free nothing and take a quarter of the time

# No deadlines: a loaded machine is slow. The examples are the same each time, so that a failing
# test keeps failing; `thorough` generates new ones. A property with expensive examples sets its own
# count by tests.support.examples, which these profiles scale.
_quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "dev", deadline=None, max_examples=DEV_EXAMPLES, derandomize=True, suppress_health_check=_quiet
)
settings.register_profile(
    "thorough", settings.get_profile("dev"), max_examples=250 * DEV_EXAMPLES, derandomize=False
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
if settings().derandomize:
    # Hypothesis also uses the constants of each module imported so far in this process: the
    # examples would differ between workers, and after each change of the code.
    providers._get_local_constants = lambda: providers._local_constants  # empty


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in FOLDERS_WITH_MARKER:
            item.add_marker(folder)
    items.sort(key=_priority, reverse=True)  # the longest first: no long test starts last


class _OneWorker(LoadScopeScheduling):
    """Distributes single tests, and the tests of a `ONE_WORKER` group to one worker.

    The mark `xdist_group` would do this, but has no effect with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return ONE_WORKER.get(_module(nodeid), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    return _OneWorker(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_finish() -> None:
    """Exclude the collected tests, which live until the end, from garbage collection: saves a tenth
    of the time.
    """
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print each failed test at once: a run that is stopped prints no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stderr.write(f"\nfailed: {report.nodeid}\n")


def _priority(item: pytest.Item) -> tuple[bool, float]:
    """Whether the test belongs to a `ONE_WORKER` group; its time limit in seconds, 0 without
    one.
    """
    marker = item.get_closest_marker("timeout")
    return _module(item.nodeid) in ONE_WORKER, float(marker.args[0]) if marker else 0.0


def _module(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.fixture(autouse=True)
def _unit_tests_open_no_connection(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("unit") is None:
        return

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a unit test opened a connection: it belongs to tests/integration")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(autouse=True)
def _the_longest_tests_start_processes_as_users_do(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tests fork processes from one with all modules imported: see tests.support.warm."""
    if request.node.get_closest_marker("chaos"):
        monkeypatch.setenv("TESTS_START", "cold")


@pytest.fixture(autouse=True)
def _secrets_of_one_test_are_not_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", set())
