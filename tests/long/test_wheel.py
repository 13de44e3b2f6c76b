"""The wheel in its own environment and an empty folder, as for a user."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.wheel import ROOT, python_with_the_wheel, run

pytestmark = pytest.mark.timeout(180)
SCRIPTS = ("backpack-bridge", "backpack-consumers", "backpack-simulator")

CONSUMER = '''"""A user's consumer, and its test."""

from backpack_bridge import (
    Consumer, Delivery, Depth, Gap, OrderBook, Results, Trade, consumes, read,
)
from backpack_bridge.testing import EventFactory, Trial


@consumes("trade.*", name="volume")
def volume(delivery: Delivery[Trade], results: Results) -> None:
    results.hincrby("", "trades", 1)
    print(delivery.stream, delivery.event.price, delivery.event.received_us + 1)


class Books(Consumer):
    """Keeps books."""

    name = "books"
    streams = ("depth.*",)

    async def on_depth(self, delivery: Delivery[Depth]) -> None:
        book: OrderBook = OrderBook()
        print(book, delivery.event.bids)

    async def on_gap(self, delivery: Delivery[Gap]) -> None:
        print(delivery.event.cause)


def prices() -> list[str]:
    return [entry.event.price for entry in read("trade.SOL_USDC") if isinstance(entry.event, Trade)]


def test_books() -> None:
    Trial(Books, "depth.SOL_USDC").deliver(EventFactory("SOL_USDC").trade("1"))
'''


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_with_the_wheel(tmp_path_factory)


def own_package(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text('"""The user\'s own."""\n')


def test_mypy_finds_what_is_mistyped_in_a_consumer_against_the_wheel_and_nothing_else(
    tmp_path: Path, python: Path
) -> None:
    (tmp_path / "mine.py").write_text(CONSUMER)
    mistyped = CONSUMER.replace("delivery.event.price", "delivery.event.prce")
    (tmp_path / "mistyped.py").write_text(mistyped)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python)]

    lines = run(tmp_path, [*mypy, "mine.py", "mistyped.py"]).stdout.splitlines()

    assert [line.partition(":")[0] for line in lines[:-1]] == ["mistyped.py"]
    assert '"Trade" has no attribute "prce"' in lines[0]
    assert lines[-1] == "Found 1 error in 1 file (checked 2 source files)"


@pytest.mark.parametrize("name", ["bridge", "consumers"])
def test_user_package_with_a_name_of_the_project_is_reported_in_one_sentence(
    tmp_path: Path, python: Path, name: str
) -> None:
    own_package(tmp_path, name)
    (tmp_path / "mine.py").write_text("from backpack_bridge import Trade\n")

    done = run(tmp_path, [python, "mine.py"])

    assert done.stderr.splitlines()[-1] == (
        f"ImportError: backpack-bridge has a package '{name}', and "
        f"{tmp_path / name / '__init__.py'} is found in its place: give yours another name"
    )


@pytest.mark.parametrize("name", ["bridge", "consumers"])
def test_user_folder_with_a_name_of_the_project_is_ignored(
    tmp_path: Path, python: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "mine.py").write_text("from backpack_bridge import Trade\nprint(Trade.__name__)\n")

    assert run(tmp_path, [python, "mine.py"]).stdout == "Trade\n"


def test_public_command_works_with_a_user_package_named_bridge(
    tmp_path: Path, python: Path
) -> None:
    own_package(tmp_path, "bridge")

    done = run(tmp_path, [python, "-m", "backpack_bridge", "--version"])

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("backpack-bridge ")


def test_consumers_with_a_user_package_named_bridge_end_with_one_sentence(
    tmp_path: Path, python: Path
) -> None:
    own_package(tmp_path, "bridge")

    done = run(tmp_path, [python, "-m", "consumers", "list"])

    assert done.returncode == 1
    assert done.stderr == (
        f"error: backpack-bridge has a package 'bridge', and "
        f"{tmp_path / 'bridge' / '__init__.py'} is found in its place: give yours another name\n"
    )


@pytest.mark.parametrize("name", ["bridge", "consumers"])
def test_wheel_scripts_work_with_a_user_package_of_the_same_name(
    tmp_path: Path, python: Path, name: str
) -> None:
    """The scripts search the current folder only after their own packages are imported."""
    own_package(tmp_path, name)
    (tmp_path / "mine.py").write_text(CONSUMER)

    done = run(tmp_path, [python.with_name("backpack-consumers"), "run", "mine:prices"])

    assert done.returncode == 2
    # the script has imported the user's module
    assert "mine:prices: prices is neither a subclass" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_states_its_own_name_and_version(
    tmp_path: Path, python: Path, script: str
) -> None:
    done = run(tmp_path, [python.with_name(script), "--version"])

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{script} {version('backpack-bridge')}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["init", "--help"], ["check", "--help"]])
def test_help_of_a_script_calls_it_by_its_own_name(
    tmp_path: Path, python: Path, arguments: list[str]
) -> None:
    output = run(tmp_path, [python.with_name("backpack-bridge"), *arguments]).stdout

    assert " backpack-bridge " in output
    assert "python -m" not in output


def test_init_in_an_empty_folder_writes_what_the_repository_has(
    tmp_path: Path, python: Path
) -> None:
    done = run(tmp_path, [python.with_name("backpack-bridge"), "init"])

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env.example", "config.yaml"]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (ROOT / path.name).read_bytes()


def test_check_reads_the_files_of_init(tmp_path: Path, python: Path) -> None:
    bridge = python.with_name("backpack-bridge")
    run(tmp_path, [bridge, "init"])
    (tmp_path / ".env.example").rename(tmp_path / ".env")

    away = {
        "BRIDGE_REDIS__URL": "redis://127.0.0.1:1",
        "BRIDGE_EXCHANGE__REST_URL": "http://127.0.0.1:1",
    }
    done = run(tmp_path, [bridge, "check"], **away)

    assert done.returncode == 1  # there is no Redis
    assert "config.yaml" in done.stdout


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("json-schema", "entries.schema.json"),
        ("asyncapi", "asyncapi.json"),
        ("status", "status.schema.json"),
    ],
)
def test_contract_prints_the_document_of_the_repository(
    tmp_path: Path, python: Path, form: str, file: str
) -> None:
    done = run(tmp_path, [python.with_name("backpack-bridge"), "contract", form])

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads((ROOT / "docs/contract" / file).read_text())
