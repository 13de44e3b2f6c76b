"""`python -m consumers deadletters`: show dead letters, send them back, or drop them."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from redis.asyncio import Redis

from bridge.contract.identity import EntryId
from bridge.contract.json_text import parsed
from bridge.contract.moments import moment
from bridge.contract.whole_number import whole_number
from bridge.errors import ConfigError, Fatal
from bridge.runtime.terminal import echo, echo_json
from consumers.commands.fetching import ConfigOption, StreamsOption, fetch, no_group
from consumers.kit.api.results import is_entry_id
from consumers.kit.handling.dead_letters import DeadLetters, StoredDeadLetter
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.registry import choose, group_names, stream_names

deadletters = typer.Typer(
    no_args_is_help=True,
    help="Entries that a group could not handle, kept in Redis with the reason.",
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
    """Print a line per dead letter: group, letter ID, stream, entry ID, attempts, error.

    Includes those that were sent back, until a worker takes them.
    """

    async def read(redis: Redis, keys: Keys) -> list[StoredDeadLetter]:
        there = await group_names(redis, keys)
        chosen = choose(await stream_names(redis, keys), streams or ("*",))
        dead_letters = [
            one
            for name in ([group] if group else there)
            for one in (
                *await DeadLetters(redis, keys, name).find(chosen),
                *await DeadLetters(redis, keys, name).find_sent_back(chosen),
            )
        ]
        if group and not dead_letters:
            _need_group(group, there)
        return dead_letters

    dead_letters = fetch(config, read)
    for one in dead_letters:
        if as_json:
            echo_json(_plain(one))
        else:
            parts = (one.group, one.letter_id, one.stream, one.fields["entry_id"])
            sent_back = " (sent back)" if one.is_sent_back else ""
            reason = one.fields["error"]
            echo(f"{' '.join(parts)} ×{one.fields['attempts']} {reason}{sent_back}")
    if not dead_letters and not as_json:
        echo("no dead letters", to_stderr=True)


@deadletters.command()
def show(group: GroupArgument, letter: str, config: ConfigOption = None) -> None:
    """Show all data of a dead letter, with its entry's fields (also of a private stream)."""

    _need_ids([letter])

    async def read(redis: Redis, keys: Keys) -> list[StoredDeadLetter]:
        return await _stored(redis, keys, group, None, [letter])

    for one in fetch(config, read):
        whole = _plain(one) | {"fields": _entry(one.fields["fields"])}
        echo_json(whole, indent=2)


@deadletters.command()
def retry(
    group: GroupArgument,
    letters: IdsArgument = None,
    every: AllOption = False,
    streams: StreamsOption = None,
    config: ConfigOption = None,
) -> None:
    """Send dead letters back: the group's workers handle each once more, out of order.

    One that fails becomes a dead letter again. For example, after a correction of the handler:

        python -m consumers deadletters retry archive --all
    """
    _need_some(letters, every=every)

    async def read(redis: Redis, keys: Keys) -> int:
        dead_letters = await _stored(redis, keys, group, streams, letters)
        _need_one_stream(dead_letters, letters or ())
        return await DeadLetters(redis, keys, group).send_back(dead_letters)

    echo(f"{fetch(config, read)} sent back to {group}")


@deadletters.command("drop")
def drop_(
    group: GroupArgument,
    letters: IdsArgument = None,
    every: AllOption = False,
    streams: StreamsOption = None,
    config: ConfigOption = None,
) -> None:
    """Delete dead letters for good, also those that were sent back and not taken yet."""
    _need_some(letters, every=every)

    async def read(redis: Redis, keys: Keys) -> int:
        dead_letters = await _stored(redis, keys, group, streams, letters, sent_back=True)
        _need_one_stream(dead_letters, letters or ())
        return await DeadLetters(redis, keys, group).drop(dead_letters)

    echo(f"{fetch(config, read)} dropped")


async def _stored(
    redis: Redis,
    keys: Keys,
    group: str,
    patterns: Sequence[str] | None,
    letters: Sequence[str] | None = None,
    *,
    sent_back: bool = False,
) -> list[StoredDeadLetter]:
    streams = choose(await stream_names(redis, keys), patterns or ("*",))
    stored = DeadLetters(redis, keys, group)
    dead_letters: list[StoredDeadLetter] = []
    requested: Sequence[str | None] = letters or [None]
    for letter in requested:
        here = await stored.find(streams, letter)
        if sent_back:
            here += await stored.find_sent_back(streams, letter)
        if not here:
            _need_group(group, await group_names(redis, keys))
        if letter and not here:
            raise Fatal(f"{group} has no dead letter {letter}: `deadletters list` shows all")
        dead_letters += here
    return dead_letters


def _need_some(letters: Sequence[str] | None, *, every: bool) -> None:
    if bool(letters) == every:
        raise ConfigError("give either letter IDs, as `deadletters list` shows them, or --all")
    _need_ids(letters or ())


def _need_ids(letters: Sequence[str]) -> None:
    for letter in letters:
        if not is_entry_id(letter):
            raise ConfigError(f"{letter!r} is no letter ID: `deadletters list` shows them")


def _need_one_stream(found: Sequence[StoredDeadLetter], letters: Sequence[str]) -> None:
    """Raise ConfigError for an ID that several streams have: each stream counts its own, from the
    time in ms, so the user may mean one of them alone."""
    for letter in letters:
        streams = sorted({one.stream for one in found if one.letter_id == letter})
        if len(streams) > 1:
            raise ConfigError(
                f"{letter} is a dead letter of {' and of '.join(streams)}: name one of them with "
                "--streams"
            )


def _need_group(group: str, there: Sequence[str]) -> None:
    """Raise ConfigError for an unknown group. Called only if it has no dead letters, since those of
    a group without a registry entry can still be read."""
    if there and group not in there:
        raise no_group(group, there)


def _number(text: str) -> int:
    return whole_number(text, 9) or 0


def _entry(text: str) -> Any:
    """The entry's fields; the plain text if it is no JSON, written by another program."""
    try:
        return parsed(text)
    except ValueError:
        return text


def _plain(one: StoredDeadLetter) -> dict[str, Any]:
    since = moment(EntryId.parse(one.letter_id).ms * 1000)
    return {
        "group": one.group,
        "letter": one.letter_id,
        "stream": one.stream,
        "entry_id": one.fields["entry_id"],
        "attempts": _number(one.fields["attempts"]),
        "error": one.fields["error"],
        "at": one.fields["at"],
        "worker": one.fields["worker"],
        "sent_back": one.is_sent_back,
        "since": since.isoformat(timespec="milliseconds") if since is not None else None,
    }
