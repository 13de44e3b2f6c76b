"""Control characters in texts from journals, the exchange and Redis are escaped in the output."""

import io
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.__main__ import app
from bridge.commands import check, journal
from bridge.journal.inspection import Summary
from bridge.runtime import bounded_file
from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.masking import hide
from bridge.runtime.terminal import new_console

HOSTILE = "[red]X\r\nforged\x1b]0;X\x07"
SHOWN = r"[red]X\r\nforged\u001b]0;X\u0007"


def test_journal_info_shows_a_stream_name_with_escapes_on_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    journal._print(Summary(streams=Counter({HOSTILE: 7}), unwritten=[HOSTILE]))
    lines = capsys.readouterr().out.split("\n")
    assert f"{7:>12,}  {SHOWN}" in lines
    assert f"unwritten {SHOWN}" in lines
    assert all(line.isprintable() for line in lines)


def test_check_shows_findings_with_escapes_and_without_secrets() -> None:
    hide(["hush"])
    console = new_console(200)
    console.file = io.StringIO()
    found = Finding(Level.PROBLEM, "redis", f"it says {HOSTILE} to hush", HOSTILE)
    console.print(check._findings_table([found]))
    text = console.file.getvalue()
    assert f"it says {SHOWN} to ***" in text
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    "text", ["init NAME", "status --config NAME", "journal info NAME", "tap trade.A --config NAME"]
)
def test_a_path_that_is_too_long_is_reported_as_an_error(text: str) -> None:
    name = "9" * 5_000
    result = CliRunner().invoke(app, text.replace("NAME", name).split())
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code in (1, 2)
    assert result.output.startswith("error: ")
    # Python 3.14 reports a path that is too long as missing
    assert "File name too long" in result.output or "holds no journal" in result.output


def test_a_pipe_without_a_writer_is_refused_as_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_file, "PIPE_S", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = CliRunner().invoke(app, ["status", "--config", str(pipe)])
    assert result.exit_code == 2
    assert "it is a pipe that brings nothing for 0.05 s" in result.output


def test_a_configuration_is_read_from_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["/bin/sh", "-c", f"echo 'instance: [1]' > {pipe}"]):
        result = CliRunner().invoke(app, ["status", "--config", str(pipe)])
    assert result.exit_code == 2
    assert "instance" in result.output


def test_an_endless_device_is_refused_as_configuration() -> None:
    result = CliRunner().invoke(app, ["status", "--config", "/dev/zero"])
    assert result.exit_code == 2
    assert "/dev/zero cannot be read: it has more than 1,000,000 bytes" in result.output
