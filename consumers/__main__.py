"""The command line of the consumers: commands, signals, exit codes.

Exit codes: 0 done (drained after Ctrl-C or SIGTERM too), 1 failed, 2 usage or configuration, 130
interrupted a second time.
"""

import signal

# During the imports Ctrl-C ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from backpack_bridge.shadows import check_shadows

try:
    check_shadows()  # `python -m` puts the current folder first in the import path
except ImportError as error:
    sys.exit(f"error: {error}")

from bridge import __version__
from bridge.errors import BridgeError, ConfigError, Fatal
from bridge.runtime.collector import settle_collector
from bridge.runtime.config import Config, ConsumerGroup, load_config
from bridge.runtime.keys import secret_texts
from bridge.runtime.logs import setup_logs
from bridge.runtime.program_name import name_examples
from bridge.runtime.terminal import echo, ready_standard_files, telling_full_disks
from bridge.runtime.time_range import HELP, point
from consumers.commands import exporter, replay, status
from consumers.commands.dead_letters import deadletters
from consumers.commands.fetching import address, key_part
from consumers.commands.signals import INTERRUPTED, stop_on_signals
from consumers.kit.api.consumer import ConsumerSpec, options_of
from consumers.kit.stop import Stop
from consumers.kit.worker.loading import SAMPLES, configured, load, options
from consumers.kit.worker.worker import DEFAULT_LEASE_S, Settings, default_name, run_worker

if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)


_MOST_AHEAD = timedelta(days=1)  # this machine's clock may be wrong


class Commands(TyperGroup):
    """Turns errors of commands into one line and an exit code."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        if info_name:
            name_examples(self, "python -m consumers", info_name)
        return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BridgeError as error:
            raise typer.Exit(_report(error)) from None
        except BaseExceptionGroup as group:  # raised by a TaskGroup
            ours, others = group.split(BridgeError)
            if ours is None or others is not None:
                raise
            raise typer.Exit(_report(_first(ours))) from None
        except OSError as error:
            if error.filename is None:
                raise
            # A path given by the user cannot be used, for a reason that no command handles.
            raise typer.Exit(_report(Fatal(f"{error.filename}: {error.strerror}"))) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _print_version(is_set: bool) -> None:
    if is_set:
        echo("backpack-consumers " + __version__)
        raise typer.Exit


cli = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.callback()
def _consumers(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Workers that read the exchange's streams from Redis, each in a process of its own."""


cli.add_typer(deadletters, name="deadletters")
cli.command("replay")(replay.command)
cli.command("status")(status.command)
cli.command("exporter")(exporter.command)


@cli.command("list")
def list_() -> None:
    """Show the sample consumers, the streams they read, and their options."""
    for name in SAMPLES:
        kind = load(name)
        purpose = (kind.__doc__ or "").strip().splitlines()[0]
        echo(f"{name:<8} {kind.mode:<8} {' '.join(kind.streams)}")
        echo(f"         {purpose}")
        for option, default in options_of(kind).items():
            echo(f"         --option {option}={default}")


@cli.command()
def run(
    consumer: Annotated[
        str,
        typer.Argument(help="A sample's name (see `list`), or my_package.my_module:MyConsumer."),
    ],
    config: Annotated[
        Path | None,
        typer.Option(help="The configuration: redis, embedded, log and consumers are used."),
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
        str | None,
        typer.Option(
            "--from",
            help=f"Where a new group begins: {HELP}; else beginning.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="name=value for the consumer; may be repeated."),
    ] = None,
    lease: Annotated[
        float | None,
        typer.Option(
            min=0.2,
            max=600,
            help=f"Seconds until a silent worker's work passes to others (else "
            f"{DEFAULT_LEASE_S:g}).",
        ),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(
            help="host:port for /healthz and /readyz, such as 127.0.0.1:9466 (else none)."
        ),
    ] = None,
) -> None:
    """Run one worker until Ctrl-C, which finishes current entries; a second one ends it at once.

    Start any number of workers, on any machines. For example:

        python -m consumers run tail --streams 'trade.*' --from new

        python -m consumers run candles --option intervals=1m,5m
    """
    settings_read = load_config(config)
    secrets = secret_texts(settings_read.redis.url)
    setup_logs(settings_read.log.level, settings_read.log.format, secrets)
    kind = load(consumer)
    named = key_part(group or kind.name, "--group")
    given = settings_read.consumers.get(named, ConsumerGroup())
    kind = configured(kind, named, given.settings())
    settings = Settings(
        consumer=ConsumerSpec(kind, given.options | options(option or ())),
        group=named,
        name=key_part(name or default_name(), "--name"),
        patterns=tuple(streams or given.streams or kind.streams),
        start=_start(start, named, given, datetime.now(UTC)),
        lease_s=lease or given.lease_s or DEFAULT_LEASE_S,
        health=address(health, "--health") if health is not None else None,
    )
    settle_collector()
    try:
        asyncio.run(_until_stopped(settings, settings_read))
    except asyncio.CancelledError:  # the kit never cancels this task: a signal sets `stop`
        raise Fatal(f"{named}: code of the consumer has cancelled its worker's task") from None
    except SystemExit:
        text = "code of the consumer has called sys.exit: raise StopWorker to end a worker cleanly"
        _report(Fatal(f"{named}: {text}"))
        raise


def _start(given: str | None, group: str, settings: ConsumerGroup, now: datetime) -> str:
    """The ID after which a new group begins, or `$`: of the option, else of the configuration.
    Raises ConfigError."""
    what = "--from" if given or not settings.start else f"consumers.{group}.start"
    text = given or settings.start or "beginning"
    found = point(text, now, what)
    if found.us > (now + _MOST_AHEAD).timestamp() * 1_000_000:
        raise ConfigError(f"{what} {text} is a time to come: nothing would be read until then")
    return found.after


async def _until_stopped(settings: Settings, config: Config) -> None:
    stop = Stop()
    stop_on_signals(stop)
    await run_worker(settings, config, stop)


def _first(group: BaseExceptionGroup[BridgeError]) -> BridgeError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _report(error: BridgeError) -> int:
    for line in str(error).splitlines():
        echo("error: " + line, to_stderr=True)
    return 2 if isinstance(error, ConfigError) else 1


def main() -> None:
    """Run the command line."""
    ready_standard_files()
    with telling_full_disks():
        cli()


if __name__ == "__main__":
    main()
