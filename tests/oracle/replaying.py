"""Replay a case's journals with a checkout's code into an empty Redis, and read the entries."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.oracle.cases import Case, Entry
from tests.support.redis_server import RedisServer

HERE = Path(__file__).resolve().parents[2]  # this checkout
DRIVER = Path(__file__).resolve().parent / "driver.py"
LIMIT_S = 120.0
CODES = (0, 1)  # 1: some records were damaged, and the rest is published
PAGE = 5_000


class ReplayFailed(Exception):
    """The command failed; the message is its stderr."""


def replay(
    case: Case, folder: Path, code: Path, server: RedisServer, **variables: str
) -> dict[str, list[Entry] | ReplayFailed]:
    """The entries in Redis, or the failure, by name of the replay.

    `folder`: of the unpacked case; `code`: the checkout whose bridge replays; `variables`: of the
    environment.
    """
    (folder / "config.yaml").write_text(json.dumps(_settings(case.settings, code)))
    with server.client() as client:
        client.flushall()
    urls = {name: f"{server.url.rpartition('/')[0]}/{db}" for db, name in enumerate(case.replays)}
    commands = [
        (name, [urls[name], ["replay", f"journals/{journal}", *options]])
        for name, steps in case.replays.items()
        for journal, *options in steps
    ]
    ends = _run(code, folder, [command for _, command in commands], variables)
    failed = {
        name: ReplayFailed(f"exit {exit_code}: {stderr[-2000:]}")
        for (name, _), (exit_code, stderr) in zip(commands, ends, strict=True)
        if exit_code not in CODES or "Traceback" in stderr
    }
    return {name: failed.get(name) or _read(urls[name]) for name in case.replays}


def _settings(recorded: Mapping[str, Any], code: Path) -> dict[str, Any]:
    """The settings of a case, with the names of the checkout that replays."""
    shipped = (code / "config.yaml").read_text()
    settings = json.loads(json.dumps(recorded))
    publish = settings.get("publish", {})
    if "repair_s" in publish and "recover_s" in shipped:
        publish["recover_s"] = publish.pop("repair_s")
    return dict(settings)


def _read(url: str) -> list[Entry]:
    with redis.Redis.from_url(url) as client:
        return read_all(client)


def read_all(client: redis.Redis) -> list[Entry]:
    """Every entry of every stream, sorted by stream. Bytes that are not UTF-8 are escaped."""
    names: Any = client.scan_iter(count=1000, _type="STREAM")
    return [
        (_text(stream), _text(entry_id), {_text(name): _text(value) for name, value in fields})
        for stream in sorted(names)
        for entry_id, fields in _entries(client, stream)
    ]


def _entries(client: redis.Redis, stream: bytes) -> list[tuple[bytes, list[tuple[bytes, bytes]]]]:
    entries, begin = [], b"-"
    while True:
        page: Any = client.xrange(stream, begin, count=PAGE)
        entries += [(entry_id, list(fields.items())) for entry_id, fields in page]
        if len(page) < PAGE:
            return entries
        begin = b"(" + page[-1][0]


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def python_of(code: Path) -> str:
    """The interpreter of a checkout: its own environment's, if it has one."""
    own = code / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def _run(
    code: Path, folder: Path, commands: Sequence[object], variables: Mapping[str, str]
) -> list[tuple[int, str]]:
    """Run the commands in one process; exit code and stderr of each."""
    done = subprocess.run(
        [python_of(code), "-P", str(DRIVER)],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(code),
            "BRIDGE_LOG__LEVEL": "error",
            **variables,
        },
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        return [(done.returncode, done.stderr)] * len(commands)
    ends: list[tuple[int, str]] = json.loads(done.stdout)
    return ends
