"""Ctrl-C while a command still imports its modules ends it without a traceback."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bridge_process import environment

SLOW_IMPORT = 'import time\nprint("importing", flush=True)\ntime.sleep(60)\n'


@pytest.mark.parametrize(
    "arguments", [("bridge", "run"), ("consumers", "run", "candles"), ("simulator",)]
)
def test_interrupt_during_imports_ends_the_command_at_once(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "typer.py").write_text(SLOW_IMPORT)
    variables = environment()
    variables["PYTHONPATH"] = f"{tmp_path}:{variables['PYTHONPATH']}"
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=60)

    assert process.returncode == -signal.SIGINT  # a shell shows 130
    assert output == ""


def test_kit_names_are_importable_without_importing_the_kit_first() -> None:
    """`python -m consumers` must not import the whole kit before it can handle a signal."""
    arguments = (
        "import sys, consumers; early = 'redis' in sys.modules; "
        "names = [getattr(consumers, name) for name in consumers.__all__]; print(early, len(names))"
    )

    done = subprocess.run(
        [sys.executable, "-c", arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    early, count = done.stdout.split()
    assert early == "False"
    assert int(count) >= 11
