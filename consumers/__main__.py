"""The door of the consumers: commands, signals, exit codes.

Exit codes: 0 done (drained after Ctrl-C or SIGTERM too), 1 failed, 2 usage or configuration, 130
interrupted a second time.
"""

import signal

# Until the imports are done Ctrl-C ends the process as it ends any other: no traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bridge.errors import BridgeError, ConfigError
from bridge.runtime.config import Config, load_config
from bridge.runtime.logs import setup_logs
from bridge.runtime.masking import masked_text
from consumers.commands import replay, status
from consumers.commands.asking import word
from consumers.commands.deadletters import deadletters
from consumers.commands.stopping import INTERRUPTED, stop_on_signals
from consumers.consumer import options_of
from consumers.link import Stop
from consumers.loading import SAMPLES, load, options
from consumers.policy import start_position
from consumers.worker import DEFAULT_LEASE_S, Settings, default_name, run_worker

if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Door(TyperGroup):
    """Turns what goes wrong in a command into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BridgeError as error:
            raise typer.Exit(_told(error)) from None
        except BaseExceptionGroup as group:  # a TaskGroup's way of failing
            ours, others = group.split(BridgeError)
            if ours is None or others is not None:
                raise
            raise typer.Exit(_told(_first(ours))) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


door = typer.Typer(
    cls=Door,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Workers that read the exchange's streams from Redis, each in a process of its own.",
)


door.add_typer(deadletters, name="deadletters")
door.command("replay")(replay.command)
door.command("status")(status.command)


@door.command("list")
def list_() -> None:
    """Show the sample consumers, the streams they read, and their options."""
    for name in SAMPLES:
        kind = load(name)
        purpose = (kind.__doc__ or "").strip().splitlines()[0]
        typer.echo(f"{name:<8} {kind.mode:<8} {' '.join(kind.streams)}")
        typer.echo(f"         {purpose}")
        for option, default in options_of(kind).items():
            typer.echo(f"         --option {option}={default}")


@door.command()
def run(
    consumer: Annotated[
        str,
        typer.Argument(help="A sample's name (see `list`), or my_package.my_module:MyConsumer."),
    ],
    config: Annotated[
        Path | None, typer.Option(help="The configuration; only redis and embedded are used.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="The consumer group; its workers share the work (else the consumer's name)."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="This worker's name, stable over restarts (else host-pid).")
    ] = None,
    streams: Annotated[
        list[str] | None,
        typer.Option(
            help="A pattern such as 'trade.SOL*'; may be repeated (else the consumer's own)."
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            help="Where a new group begins: beginning, new, a time (UTC), 2h (ago), after an ID.",
        ),
    ] = "beginning",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="name=value for the consumer; may be repeated."),
    ] = None,
    lease: Annotated[
        float,
        typer.Option(
            min=0.2,
            max=600,
            help="Seconds until a silent worker's work passes to others.",
        ),
    ] = DEFAULT_LEASE_S,
) -> None:
    """Run one worker until Ctrl-C, which finishes the batch in hand; a second leaves at once.

    Start as many as you like, here or elsewhere. For example:

        python -m consumers run tail --streams 'trade.*' --from new

        python -m consumers run candles --option intervals=1m,5m
    """
    settings_read = load_config(config)
    setup_logs(settings_read.log.level, settings_read.log.format)
    kind = load(consumer)
    settings = Settings(
        kind=kind,
        group=word(group or kind.name, "--group"),
        name=word(name or default_name(), "--name"),
        patterns=tuple(streams or kind.streams),
        start=start_position(start, datetime.now(UTC)),
        lease_s=lease,
        options=options(option or ()),
    )
    asyncio.run(_until_stopped(settings, settings_read))


async def _until_stopped(settings: Settings, config: Config) -> None:
    stop = Stop()
    stop_on_signals(stop)
    await run_worker(settings, config, stop)


def _first(group: BaseExceptionGroup[BridgeError]) -> BridgeError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _told(error: BridgeError) -> int:
    for line in str(error).splitlines():
        typer.echo("error: " + masked_text(line), err=True)
    return 2 if isinstance(error, ConfigError) else 1


def main() -> None:
    """Run the command line."""
    door()


if __name__ == "__main__":
    main()
