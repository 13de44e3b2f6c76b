"""The command line: commands, exit codes, and error messages.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 130 interrupted. Commands are in
`bridge.commands`, one module each with a function `command`, imported only when called.
The syntax of this file lets an old Python run it far enough to report that it is too old.
"""

import signal
import sys

# Until the imports are done Ctrl-C ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
# SIGHUP makes these two reload the configuration: it is blocked until they can.
if sys.argv[1:2] in (["run"], ["record"]) and hasattr(signal, "pthread_sigmask"):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])

if sys.version_info < (3, 11):  # noqa: UP036 - says so in one line instead of a traceback
    sys.stderr.write(
        f"error: this needs Python 3.11 or newer, and this is Python "
        f"{sys.version_info[0]}.{sys.version_info[1]}: start it with python3.11\n"
    )
    sys.exit(2)

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from bridge import __version__
from bridge.errors import BridgeError, ConfigError, Fatal
from bridge.runtime.program_name import name_examples
from bridge.runtime.terminal import echo, ready_standard_files, telling_full_disks

if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# name and help text; the module is bridge.commands.<name>
COMMANDS = {
    "demo": "See it all work on this machine, with a simulated exchange.",
    "init": "Write config.yaml and .env.example to begin with.",
    "check": "Check configuration, keys, streams and Redis; report faults and what to do.",
    "run": "Hold the connections to the exchange and publish to Redis Streams.",
    "status": "Show the status of bridges, streams and consumers, from Redis alone.",
    "top": "Watch streams, rates, last values and consumers, live.",
    "console": "Show a running system in a browser.",
    "tap": "Follow streams, one readable line an entry.",
    "explain": "Show one entry's whole life: its frame, place and gaps, and each group's work.",
    "audit": "Certify a stream: dense, complete, its gaps listed; Redis, journal, archive.",
    "book": "Show a market's order book as it was at any time, exactly.",
    "key": "Print a stream's key in Redis, for redis-cli and programs in other languages.",
    "reshard": "Copy all keys of a Cluster to another number of shards.",
    "record": "Receive and write the journal only.",
    "replay": "Publish a journal again, without the exchange.",
    "journal": "Inspect a journal: info, verify, export.",
    "contract": "Print what is in Redis, as JSON Schema or AsyncAPI.",
    "redis": "Run the embedded Redis server in the foreground.",
}


class LazyCommand(TyperCommand):
    """An entry in the list of commands; the command is loaded when it is called."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        assert self.name is not None
        command = _load(self.name)
        name_examples(command, "python -m bridge", extra["parent"].command_path)
        return command.make_context(info_name, args, *rest, **extra)


class CommandGroup(TyperGroup):
    """Finds commands by name, and turns their exceptions into exit codes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update(
            {name: LazyCommand(name, help=text) for name, text in COMMANDS.items()}
        )

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BridgeError as error:
            raise typer.Exit(_report_error(error)) from None
        except BaseExceptionGroup as several:  # raised by a TaskGroup
            ours, others = several.split(BridgeError)
            if ours is None or others is not None:
                raise
            raise typer.Exit(max(_report_error(error) for error in _each(ours))) from None
        except OSError as error:
            if error.filename is None:
                raise
            # A path from the user that cannot be used; the command does not handle the reason.
            raise typer.Exit(_report_error(Fatal(f"{error.filename}: {error.strerror}"))) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _report_error(error: BaseException) -> int:
    """Print the error. Returns the exit code."""
    for line in str(error).splitlines():
        echo("error: " + line, to_stderr=True)
    return 2 if isinstance(error, ConfigError) else 1


def _each(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _each(error)
        else:
            yield error


def _load(name: str) -> Any:
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    single.command(name)(import_module("bridge.commands." + name).command)
    return typer.main.get_command(single)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        echo("backpack-bridge " + __version__)
        raise typer.Exit


app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback()
def _bridge(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Backpack Exchange to Redis Streams: receives, validates, publishes every message.

    Configuration is config.yaml; `COMMAND --help` describes each command.
    """


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    ready_standard_files()
    with telling_full_disks():
        app()


if __name__ == "__main__":
    main()
