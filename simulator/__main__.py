"""The command line: options, signals, exit codes (0 done, 1 failed, 2 usage, 130 interrupted)."""

from __future__ import annotations

import signal

# During the imports Ctrl-C ends the process by the default signal handling: no traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

try:
    import aiohttp  # noqa: F401 - an extra, which an installed package may lack
except ImportError as error:
    sys.exit(f"error: {error}: pip install 'backpack-bridge[simulator]'")

from simulator import __version__
from simulator.app import Settings, serve
from simulator.engine import Plan
from simulator.faults.on_rest import HISTORICAL_PER_MINUTE, PER_MINUTE, Budget
from simulator.faults.reading import BadCommand, Scheduled, script
from simulator.listing import DEFAULT_SYMBOLS, Listing, listing
from simulator.playback import RecordedFrame, listings, load, read_bounded
from simulator.signing import DEMO_KEYS, is_public_key

if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FAILED = 1
INTERRUPTED = 130

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main() -> None:
    """Entry point of `python -m simulator` and of the script `backpack-simulator`."""
    app()


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo("backpack-simulator " + __version__)
        raise typer.Exit


@app.command()
def simulator(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes any free one.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same market.")] = 1,
    rate: Annotated[
        float,
        typer.Option(min=0, help="Trades, realtime depth and bookTicker frames made each second."),
    ] = 100.0,
    market: Annotated[
        list[str] | None,
        typer.Option(help=f"A market; repeatable. [default: {', '.join(DEFAULT_SYMBOLS)}]"),
    ] = None,
    accept_key: Annotated[
        list[str] | None,
        typer.Option(
            help="A public key (base64) whose signatures are accepted; each has its own account. "
            "Repeatable. [default: the two demo keys of the exchange's Python guide]"
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="Record what is put out in this file, as JSON lines: all trades, realtime depth "
            "and account frames, and every stream from its first subscription on."
        ),
    ] = None,
    play: Annotated[
        Path | None,
        typer.Option(help="Serve the frames of this file (JSON lines) instead of a made market."),
    ] = None,
    play_lines: Annotated[
        str | None,
        typer.Option(metavar="A-B", help="Only these lines of the file, counted from 1."),
    ] = None,
    speed: Annotated[
        str, typer.Option(metavar="FLOAT|max", help="How many times faster to play the file.")
    ] = "1",
    faults: Annotated[
        Path | None,
        typer.Option(
            help="A script of faults: one command a line, each with its at_s (seconds from the "
            "start). See docs/simulator.md."
        ),
    ] = None,
    rest_per_minute: Annotated[
        int, typer.Option(min=1, help="REST requests a minute before it answers 429.")
    ] = PER_MINUTE,
    history_per_minute: Annotated[
        int, typer.Option(min=1, help="Of these, requests for candles and trades.")
    ] = HISTORICAL_PER_MINUTE,
    start: Annotated[
        int | None,
        typer.Option(
            metavar="EPOCH_US", min=0, help="Engine time to begin at. [default: the real time]"
        ),
    ] = None,
    for_seconds: Annotated[
        float | None,
        typer.Option("--for", min=0, metavar="SECONDS", help="Stop by itself after so long."),
    ] = None,
    events: Annotated[
        int | None,
        typer.Option(min=0, help="Make no more than so many core frames; keep serving after."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """A local Backpack Exchange: its WebSocket and REST protocol on one port.

    The market is generated, the same for the same --seed, --start and options; or recorded, with
    --play. Point any client of the exchange to the printed address: WebSocket at ws://HOST:PORT,
    REST at http://HOST:PORT. In addition to the exchange's own endpoints, /simulator/book,
    /simulator/account and /simulator/stats report the simulator's state, and /simulator/faults
    accepts faults to inject.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    recorded = None if play is None else _recording(play, play_lines)
    if play is None and play_lines is not None:
        raise typer.BadParameter("needs --play", param_hint="--play-lines")
    listed = _listings(market or list(DEFAULT_SYMBOLS)) if recorded is None else listings(recorded)
    plan = Plan(
        listings=listed,
        seed=seed,
        start_us=time.time_ns() // 1000 if start is None else start,
        rate=rate,
        accounts=_keys(accept_key),
        events=events,
    )
    settings = Settings(
        plan,
        host=host,
        port=port,
        ledger=ledger,
        recorded=recorded,
        speed=_speed(speed),
        faults=() if faults is None else _faults(faults),
        budget=Budget(rest_per_minute, history_per_minute),
    )
    try:
        sys.exit(asyncio.run(_run(settings, for_seconds)))
    except OSError as error:
        _fail(error.strerror or str(error), host, port, ledger, error)


async def _run(settings: Settings, for_seconds: float | None) -> int:
    """Serve until a signal or the end of the time; returns the exit code."""
    stop = asyncio.Event()
    codes: list[int] = []

    def stop_with(code: int) -> None:
        codes.append(code)
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop_with, 0)
    loop.add_signal_handler(signal.SIGINT, stop_with, INTERRUPTED)
    if for_seconds is not None:
        loop.call_later(for_seconds, stop_with, 0)
    await serve(settings, stop, _announce)
    return codes[0]


def _announce(address: str) -> None:
    typer.echo(f"simulator listening on ws://{address}")


def _fail(reason: str, host: str, port: int, ledger: Path | None, error: OSError) -> NoReturn:
    """Exit with one line about what could not be opened."""
    what = f"ledger {ledger}" if error.filename is not None else f"{host}:{port}"
    typer.echo(f"simulator: cannot open {what}: {reason}", err=True)
    sys.exit(FAILED)


def _listings(symbols: list[str]) -> tuple[Listing, ...]:
    try:
        return tuple(listing(symbol) for symbol in dict.fromkeys(symbols))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--market") from None


def _keys(texts: list[str] | None) -> tuple[str, ...]:
    for text in texts or ():
        if not is_public_key(text):
            raise typer.BadParameter(
                f"{text!r} is not the base64 form of 32 bytes", param_hint="--accept-key"
            )
    return tuple(dict.fromkeys(texts or DEMO_KEYS))


def _recording(path: Path, lines: str | None) -> list[RecordedFrame]:
    first, last = 1, None
    if lines is not None:
        before, dash, after = lines.partition("-")
        are_numbers = dash and all(one.isdecimal() and len(one) < 20 for one in (before, after))
        if not (are_numbers and 0 < int(before) <= int(after)):
            raise typer.BadParameter("must be like 1-200", param_hint="--play-lines")
        first, last = int(before), int(after)
    try:
        return load(path, first, last)
    except OSError as error:
        raise typer.BadParameter(
            f"cannot read {path}: {error.strerror}", param_hint="--play"
        ) from None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--play") from None


def _faults(path: Path) -> tuple[Scheduled, ...]:
    try:
        return tuple(script(read_bounded(path).decode(), str(path)))
    except OSError as error:
        reason = f"cannot read {path}: {error.strerror}"
    except UnicodeDecodeError:
        reason = f"{path} is not text"
    except BadCommand as error:
        reason = str(error)
    raise typer.BadParameter(reason, param_hint="--faults")


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise typer.BadParameter("must be a number above 0, or max", param_hint="--speed")
    return speed


if __name__ == "__main__":
    main()
