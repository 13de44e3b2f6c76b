"""A bridge as a process, with a simulator and a private Redis."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import redis
import yaml

from tests.support import warm
from tests.support.eventually import eventually_async

ROOT = Path(__file__).resolve().parents[2]
STOP_LIMIT_S = 30.0
REPAIR_S = 30.0  # upper bound for a gap that cannot be recovered
LOG_SHOWN = 6_000  # characters of the log in the output of a failing test

# A key pair printed in the exchange's public guide: the simulator accepts it.
DEMO_KEYS = {
    "PUBLIC_KEY": "zDIJj9qneWIY0IYZ5aXoHcNMCm+XDhVcTssiT0HyY0A=",
    "SECRET_KEY": "4odxgSUxFrC/zsKWZF4OQwYAgnNu9hnWH3NxWfLAPz4=",
}
ACCOUNT_STREAMS = (
    "account.orderUpdate",
    "account.positionUpdate",
    "account.balanceUpdate",
    "account.rfqUpdate",
)


class BridgeRun:
    """A running bridge: its log, its status, and a way to stop it."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: Path, redis_url: str, instance: str
    ) -> None:
        self.process = process
        self.instance = instance
        self._log = log
        self._client = redis.Redis.from_url(redis_url, decode_responses=True)

    def read_status_from(self, redis_url: str) -> None:
        """Read the bridge's status from this Redis from now on."""
        self.close()
        self._client = redis.Redis.from_url(redis_url, decode_responses=True)

    def close(self) -> None:
        self._client.close()

    def log(self) -> str:
        return self._log.read_text()

    def status(self) -> dict[str, Any]:
        text = cast("str | None", self._client.hget("bridge:status", self.instance))
        status: dict[str, Any] = json.loads(text) if text else {}
        return status if status.get("pid") == self.process.pid else {}

    def is_confirmed(self, count: int) -> bool:
        """Whether `count` streams have received a message, summed over all connections."""
        connections = self.status().get("connections", [])
        return sum(each["confirmed"] for each in connections) >= count

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for the end; the exit code."""
        self.process.send_signal(how)
        await eventually_async(
            lambda: self.process.poll() is not None, "the bridge has stopped", STOP_LIMIT_S
        )
        return self.process.returncode


@asynccontextmanager
async def running_bridge(
    folder: Path,
    ws_url: str,
    redis_url: str,
    streams: Sequence[object],
    keys: Mapping[str, str] = DEMO_KEYS,
    command: str = "run",
    instance: str = "test",
    status_url: str = "",
    program: Sequence[str] = ("-m", "bridge"),
    **sections: Mapping[str, object],
) -> AsyncIterator[BridgeRun]:
    """Run `python -m bridge run` (or `record`) with this configuration until the block ends.

    `program`: the arguments of Python, for another version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "instance": instance,
        "exchange": {
            "ws_url": ws_url,
            "rest_url": ws_url.replace("ws://", "http://"),
            "reconnect_initial_s": 0.05,
            "reconnect_max_s": 0.5,
        },
        "redis": {"url": redis_url},
        "streams": list(streams),
        **sections,
        "publish": {"recover_s": REPAIR_S, **sections.get("publish", {})},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **keys}
    log = folder / "bridge.log"
    with log.open("ab") as output:
        process = warm.Process(
            [sys.executable, *program, command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    # The bridge may connect through a proxy on this event loop: the blocking client here must not.
    run = BridgeRun(process, log, status_url or redis_url, instance)
    try:
        yield run
    except BaseException:
        print(f"the log of bridge {instance} ends with:", run.log()[-LOG_SHOWN:], sep="\n")
        raise
    finally:
        if process.poll() is None:
            process.kill()
        await asyncio.to_thread(process.wait)
        run.close()


def entries(client: redis.Redis, stream: str) -> list[tuple[str, dict[str, str]]]:
    """All entries of a stream."""
    return cast("list[tuple[str, dict[str, str]]]", client.xrange(stream))
