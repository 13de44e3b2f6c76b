"""Run several commands of the bridge in one process, each in a Redis of its own (a script).

Starting Python takes longer than most replays here. Takes [[Redis URL, arguments], ...] as JSON on
stdin, and prints [[exit code, stderr], ...] as JSON.

ORACLE_CHUNK, set when a case is recorded: how many records are read between two polls of Redis. Any
difference that it causes does not follow from the journal.
"""

import contextlib
import importlib
import io
import json
import os
import sys
import traceback

from bridge.__main__ import main


def run(redis_url: str, arguments: list[str]) -> tuple[int, str]:
    """Run one command; its exit code (3 for an exception) and its stderr."""
    os.environ["BRIDGE_REDIS__URL"] = redis_url
    sys.argv = ["bridge", *arguments]
    stderr = io.StringIO()
    code: object = 0
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            code = 3
    return code if isinstance(code, int) else 3, stderr.getvalue()


if __name__ == "__main__":
    if chunk := os.environ.get("ORACLE_CHUNK"):
        vars(importlib.import_module("bridge.commands.replaying"))["CHUNK"] = int(chunk)
    json.dump([run(url, arguments) for url, arguments in json.load(sys.stdin)], sys.stdout)
