"""The command line: options, signals, exit codes (0 worked, 1 failed, 130 interrupted)."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import termios
from pathlib import Path
from typing import Annotated, Any

import typer

from bridge.errors import BridgeError
from bridge.runtime.logs import setup_logs
from bridge.runtime.terminal import echo, new_console, ready_standard_files
from demo.show import Wish, perform
from demo.stage import Stage, Stopped

FAILED, USAGE, INTERRUPTED = 1, 2, 130
_LEAVE_SCREEN = "\x1b[?1049l\x1b[?25h"  # leaves the alternate screen, shows the cursor

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    for_seconds: Annotated[
        float | None,
        typer.Option("--for", envvar="FOR", min=1, help="Seconds to run; else until q or Ctrl-C."),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(envvar="RATE", min=1, help="Trades, depth and bookTicker frames a second."),
    ] = 200,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where data and logs go, and stay; else a temporary folder."),
    ] = None,
) -> None:
    """Run the whole system: Redis, a simulated exchange, the bridge, and four consumers.

    Each is its own process on this machine; nothing contacts the real exchange, and no account is
    needed. On a terminal it shows `python -m bridge top`, elsewhere plain lines.

    q or Ctrl-C stops everything; a second Ctrl-C exits at once. Exit status: 0 all worked, 1
    something failed (the reason is printed, and the logs are kept), 130 after Ctrl-C.
    """
    ready_standard_files()
    home = _home(folder)
    try:
        with (home / "demo.log").open("w", encoding="utf-8") as log:
            setup_logs("info", "json", stream=log)
            code = asyncio.run(_run(Wish(for_seconds, rate, home)))
    except OSError as error:
        code = _complain([f"{error.filename or home}: {error.strerror}"])
    if folder is None and code != FAILED:
        shutil.rmtree(home, ignore_errors=True)
    elif code == FAILED:
        echo(f"Data and logs are kept in {home}", to_stderr=True)
    raise typer.Exit(code)


async def _run(wish: Wish) -> int:
    stop = asyncio.Event()
    signals: list[int] = []
    stages: list[Stage] = []
    terminal = _terminal()

    def on_signal(number: int) -> None:
        signals.append(number)
        if len(signals) > 1:
            _leave_at_once(stages, terminal)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        wrong = await perform(wish, new_console(), stop, _print, stages.append)
    except Stopped:
        wrong = []
    except BridgeError as error:
        wrong = str(error).splitlines()
    if wrong:
        return _complain(wrong)
    return INTERRUPTED if signals and signals[0] == signal.SIGINT else 0


def _home(folder: Path | None) -> Path:
    """The folder of this run, writable. Ends the process with an error message otherwise."""
    try:
        if folder is None:
            return Path(tempfile.mkdtemp(prefix="backpack-demo-"))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.resolve()
    except OSError as error:
        where = folder or "a temporary folder"
        echo(
            f"error: {where} cannot be written ({error.strerror}): give another with "
            "--folder, or set TMPDIR",
            to_stderr=True,
        )
        raise typer.Exit(USAGE) from None


def _complain(wrong: list[str]) -> int:
    echo(to_stderr=True)
    for line in wrong:
        echo(f"FAILED: {line}", to_stderr=True)
    return FAILED


def _terminal() -> list[Any] | None:
    return termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None


def _leave_at_once(stages: list[Stage], terminal: list[Any] | None) -> None:
    """End the parts by force, restore the terminal, and exit. Redis follows by its own guard."""
    for stage in stages:
        stage.kill()
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), _LEAVE_SCREEN.encode())
    if terminal is not None:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, terminal)
    os._exit(INTERRUPTED)


def _print(line: str) -> None:
    echo(line)
    sys.stdout.flush()


if __name__ == "__main__":
    app(prog_name="python -m demo")
