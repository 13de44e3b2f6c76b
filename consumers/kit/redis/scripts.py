"""Running the kit's Lua scripts: many calls in one round trip, by hash (EVALSHA).

If a server does not have a script (after a restart or flush), the call is repeated with the
script's text (EVAL).
"""

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from bridge.runtime.refusals import Refusal, meaning

_COMMAND = re.compile(r"redis\.p?call\('([A-Z]+)'")


class CommandRefused(NoPermissionError):
    """The user may not run a command of a script, or the server does not have the command: a
    failure of no single stream, and a retry does not help.
    """


class Call(NamedTuple):
    """One call of a script."""

    keys: Sequence[str]
    arguments: Sequence[str | int]


class Script:
    """A script of this package, `<name>.lua`; a line `--include x` inserts `x.lua`."""

    def __init__(self, name: str) -> None:
        self.text = _text(name)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, calls: Sequence[Call]) -> list[Any]:
        """One reply per call; an error of the script is an exception among the replies."""
        if not calls:
            return []
        replies = await self._send(redis, "EVALSHA", self.sha, calls)
        # Each call is a command of its own: those that ran are not run again.
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await self._send(redis, "EVAL", self.text, [calls[i] for i in unknown])
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return [self._named(reply) for reply in replies]

    async def run_one(self, redis: Redis, call: Call) -> Any:
        """The reply of a single call. Raises the script's error."""
        [reply] = await self.run(redis, [call])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _named(self, reply: Any) -> Any:
        """The reply. The error of a refused command becomes CommandRefused, with the script's
        commands: before 7.2, Redis does not name a refused command of a script.
        """
        if not isinstance(reply, ResponseError) or meaning(reply) is not Refusal.NOT_ALLOWED:
            return reply
        if "permissions to run" in str(reply):
            return CommandRefused(str(reply))
        needed = ", ".join(sorted({name.lower() for name in _COMMAND.findall(self.text)}))
        return CommandRefused(f"{reply} (a script of the kit needs {needed})")

    @staticmethod
    async def _send(redis: Redis, command: str, what: str, calls: Sequence[Call]) -> list[Any]:
        async with redis.pipeline(transaction=False) as pipeline:
            for keys, arguments in calls:
                pipeline.execute_command(command, what, len(keys), *keys, *arguments)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies


@cache
def script(name: str) -> Script:
    """The script of this name, read from its file once."""
    return Script(name)


def checked(replies: list[Any]) -> list[Any]:
    """The replies. Raises the first error among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _text(name: str) -> str:
    text = files("consumers.kit.redis").joinpath(f"{name}.lua").read_text("utf-8")
    return re.sub(r"^--include (\w+)$", lambda match: _text(match[1]), text, flags=re.MULTILINE)
