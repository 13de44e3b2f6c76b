"""`python -m consumers deadletters`: look at what was set aside, send it back, or drop it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from redis.asyncio import Redis

from bridge.errors import ConfigError, Fatal
from consumers.commands.asking import ConfigOption, StreamsOption, ask
from consumers.keys import Keys
from consumers.letters import Found, drop, find, find_sent_back, send_back
from consumers.registry import choose, group_names, stream_names

deadletters = typer.Typer(
    no_args_is_help=True,
    help="Entries that a group could not handle: each with its reason, kept beside its stream.",
)

GroupArgument = Annotated[str, typer.Argument(help="The consumer group.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(help="Letter IDs, as `list` shows them.")]
AllOption = Annotated[bool, typer.Option("--all", help="All of the group (and --streams).")]


@deadletters.command("list")
def list_(
    group: Annotated[str | None, typer.Option(help="Of this group only.")] = None,
    streams: StreamsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    config: ConfigOption = None,
) -> None:
    """One line a dead letter: group, letter ID, stream, entry ID, attempts, error.

    Those that were sent back are among them until a worker has them in hand.
    """

    async def question(redis: Redis, keys: Keys) -> list[Found]:
        groups = [group] if group else await group_names(redis, keys)
        chosen = choose(await stream_names(redis, keys), streams or ("*",))
        return [
            one
            for name in groups
            for one in (
                *await find(redis, keys, name, chosen),
                *await find_sent_back(redis, keys, name, chosen),
            )
        ]

    found = ask(config, question)
    for one in found:
        if as_json:
            typer.echo(json.dumps(_plain(one)))
        else:
            parts = (one.group, one.letter_id, one.stream, one.fields["entry_id"])
            sent_back = " (sent back)" if one.is_sent_back else ""
            reason = one.fields["error"]
            typer.echo(f"{' '.join(parts)} ×{one.fields['attempts']} {reason}{sent_back}")
    if not found and not as_json:
        typer.echo("no dead letters", err=True)


@deadletters.command()
def show(group: GroupArgument, letter: str, config: ConfigOption = None) -> None:
    """Everything about one, its entry's fields included (those of a private stream, too)."""

    async def question(redis: Redis, keys: Keys) -> list[Found]:
        return await _found(redis, keys, group, None, [letter])

    for one in ask(config, question):
        typer.echo(json.dumps(_plain(one) | {"fields": json.loads(one.fields["fields"])}, indent=2))


@deadletters.command()
def retry(
    group: GroupArgument,
    letters: IdsArgument = None,
    every: AllOption = False,
    streams: StreamsOption = None,
    config: ConfigOption = None,
) -> None:
    """Send them back: the group's workers handle each once more, after what has come since.

    One that fails again is set aside again. For example, when the handler is mended:

        python -m consumers deadletters retry archive --all
    """
    _need_some(letters, every=every)

    async def question(redis: Redis, keys: Keys) -> int:
        return await send_back(redis, keys, await _found(redis, keys, group, streams, letters))

    typer.echo(f"{ask(config, question)} sent back to {group}")


@deadletters.command("drop")
def drop_(
    group: GroupArgument,
    letters: IdsArgument = None,
    every: AllOption = False,
    streams: StreamsOption = None,
    config: ConfigOption = None,
) -> None:
    """Delete them for good."""
    _need_some(letters, every=every)

    async def question(redis: Redis, keys: Keys) -> int:
        return await drop(redis, keys, await _found(redis, keys, group, streams, letters))

    typer.echo(f"{ask(config, question)} dropped")


async def _found(
    redis: Redis,
    keys: Keys,
    group: str,
    patterns: Sequence[str] | None,
    letters: Sequence[str] | None = None,
) -> list[Found]:
    streams = choose(await stream_names(redis, keys), patterns or ("*",))
    if not letters:
        return await find(redis, keys, group, streams)
    found: list[Found] = []
    for letter in letters:
        here = await find(redis, keys, group, streams, letter)
        if not here:
            raise Fatal(f"{group} has no dead letter {letter}: look at `deadletters list`")
        found += here
    return found


def _need_some(letters: Sequence[str] | None, *, every: bool) -> None:
    if bool(letters) == every:
        raise ConfigError("which? Give letter IDs, as `deadletters list` shows them, or --all")


def _plain(one: Found) -> dict[str, Any]:
    ms = int(one.letter_id.split("-")[0])
    return {
        "group": one.group,
        "letter": one.letter_id,
        "stream": one.stream,
        "entry_id": one.fields["entry_id"],
        "attempts": int(one.fields["attempts"]),
        "error": one.fields["error"],
        "at": one.fields["at"],
        "worker": one.fields["worker"],
        "sent_back": one.is_sent_back,
        "since": datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds"),
    }
