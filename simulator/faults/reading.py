"""Parses commands from JSON; a mistake becomes a sentence: what, where, what to do. Pure.

A script has one command a line, each with `at_s`, counted from the start.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError

from simulator.candles import INTERVALS
from simulator.faults.commands import COMMANDS, Command
from simulator.session import ACCOUNT_TYPES, SYMBOL_TYPES, stream_error

BY_NAME: dict[str, type[Command]] = {
    get_args(kind.model_fields["fault"].annotation)[0]: kind for kind in COMMANDS
}
LATEST_S = 10_000_000.0
WILD = "*?["


class BadCommand(ValueError):
    """An invalid command; its text says what, where and what to do."""


class Scheduled(NamedTuple):
    """A command of a script and its time, in seconds from the start."""

    at_s: float
    command: Command


def script(text: str, name: str) -> list[Scheduled]:
    """The commands of a script. Empty lines and lines that begin with # are left out.

    Raises BadCommand, which names the line.
    """
    found: list[Scheduled] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found.append(_scheduled(line))
        except BadCommand as error:
            raise BadCommand(f"line {number} of {name}: {error}") from None
    return found


def command(source: object) -> Command:
    """A command from its parsed JSON. Raises BadCommand."""
    if not isinstance(source, dict):
        raise BadCommand('a command is an object like {"fault":"drop","stream":"trade.SOL_USDC"}')
    name = source.get("fault")
    kind = BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise BadCommand(_no_such_fault(name))
    try:
        made = kind.model_validate_json(json.dumps(source))
    except ValidationError as error:
        raise BadCommand(f"{name}: {_sentence(kind, error)}") from None
    _check_stream(made)
    return made


def parsed(text: str | bytes) -> Any:
    """The JSON of a text. Raises BadCommand."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadCommand(f"this is not JSON: {error}") from None


def _scheduled(line: str) -> Scheduled:
    source = parsed(line)
    if not isinstance(source, dict):
        return Scheduled(0.0, command(source))
    at_s = source.pop("at_s", None)
    is_number = isinstance(at_s, int | float) and not isinstance(at_s, bool)
    if not is_number or not 0 <= at_s <= LATEST_S:
        raise BadCommand('needs "at_s", the seconds from the start at which it begins (0 or more)')
    return Scheduled(float(at_s), command(source))


def _no_such_fault(name: object) -> str:
    if name is None:
        return f'needs "fault", one of: {", ".join(BY_NAME)}'
    near = get_close_matches(str(name), BY_NAME, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(BY_NAME)}"
    return f"there is no fault {name!r}; {hint}"


def _sentence(kind: type[Command], error: ValidationError) -> str:
    """The first mistake, as a sentence."""
    first = error.errors(include_url=False)[0]
    setting = str(first["loc"][0]) if first["loc"] else "the command"
    match first["type"]:
        case "missing":
            return f'needs "{setting}"'
        case "extra_forbidden":
            known = [name for name in kind.model_fields if name != "fault"]
            near = get_close_matches(setting, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known)}"
            return f'has no setting "{setting}"; {hint}'
        case _:
            message = first["msg"]
            return f'"{setting}" is {first["input"]!r}: {message[0].lower()}{message[1:]}'


def _check_stream(made: Command) -> None:
    """Raises BadCommand for an unknown kind of stream, which would never match."""
    stream = getattr(made, "stream", None)
    if stream is None:
        return
    kind, _, rest = stream.partition(".")
    if any(sign in kind for sign in WILD):
        return
    kinds = {*SYMBOL_TYPES, "depth", "kline", "account"}
    if kind not in kinds:
        near = get_close_matches(kind, kinds, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(kinds))}"
        raise BadCommand(f'{made.fault}: "stream" is {stream!r}: no such kind of stream; {hint}')
    if any(sign in rest for sign in WILD) or stream_error(stream) is None:
        return
    parts = {"account": ACCOUNT_TYPES, "kline": INTERVALS}.get(kind, ("200ms", "600ms", "1000ms"))
    raise BadCommand(
        f'{made.fault}: "stream" is {stream!r}: no such stream; '
        f"after {kind}. comes one of: {', '.join(sorted(parts))}"
    )
