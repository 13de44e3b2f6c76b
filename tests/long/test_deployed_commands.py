"""The commands of systemd and Kubernetes, run without them: each starts, answers its probes, stops.

Paths, ports and `%` specifiers are the test's own; the rest is as in the files.
"""

import contextlib
import ctypes
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import pytest
import redis

from tests.integration.deploy import units
from tests.integration.deploy.manifests import Object, of_kind, pod_of, variables, written
from tests.integration.deploy.test_stopping import seconds
from tests.support.bridge_process import environment
from tests.support.bridge_run import DEMO_KEYS
from tests.support.eventually import eventually, eventually_async
from tests.support.plain_http import request
from tests.support.redis_server import free_port
from tests.support.simulator_process import RunningSimulator, running_simulator

MODULES = {"backpack-bridge": "bridge", "backpack-consumers": "consumers"}
WORKLOADS = of_kind(written(), "StatefulSet", "Deployment")
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1  # the effect of MemoryDenyWriteExecute=yes in the kernel


def deny_write_execute() -> None:
    """Deny writable and executable memory, as systemd does; an older kernel ignores the request."""
    ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0)


class Program:
    """One of the commands as a running process: its output and its end."""

    def __init__(self, argv: Sequence[str], given: Mapping[str, str], folder: Path) -> None:
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                argv,
                cwd=folder,
                env=environment(**given),
                stdout=output,
                stderr=output,
                preexec_fn=deny_write_execute,
            )

    def output(self) -> str:
        return self._output.read_text()

    def answers(self, port: int, path: str) -> bool:
        assert self.process.poll() is None, self.output()
        with contextlib.suppress(httpx2.HTTPError, OSError):
            return request("GET", f"http://127.0.0.1:{port}{path}").status_code == 200
        return False

    def stop(self, limit_s: float) -> int:
        self.process.terminate()
        return self.process.wait(limit_s)


@contextmanager
def running(argv: Sequence[str], given: Mapping[str, str], folder: Path) -> Iterator[Program]:
    program = Program(argv, given, folder)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()


@asynccontextmanager
async def exchange(config: Path) -> AsyncIterator[RunningSimulator]:
    """An exchange, and a configuration with its addresses."""
    async with running_simulator("--rate", "100", "--market", "SOL_USDC") as simulator:
        config.write_text(
            f"exchange: {{ws_url: '{simulator.ws_url}', rest_url: '{simulator.rest_url}'}}\n"
            "streams: [trade.SOL_USDC, account.orderUpdate]\n"
        )
        yield simulator


def secrets(folder: Path, redis_url: str) -> None:
    """Write the secrets under the names that systemd and Kubernetes use."""
    values = {"redis_url": redis_url, "url": redis_url}
    values |= {name.lower(): value for name, value in DEMO_KEYS.items()}
    folder.mkdir()
    for name, value in values.items():
        (folder / name).write_text(value + "\n")
        (folder / name).chmod(0o400)


class OfSystemd:
    """A service with the test's folders in place of the machine's."""

    def __init__(self, service: str, folder: Path, config: Path) -> None:
        self.service = service
        self.port = free_port()
        self.folder = folder / service
        self.folder.mkdir()
        self._config = config
        self._marks = {"d": str(folder / "secrets"), "i": "candles", "H": "here", "S": str(folder)}

    def argv(self) -> list[str]:
        program, *arguments = units.command(self.service, self._marks)
        arguments[arguments.index("/etc/backpack-bridge/config.yaml")] = str(self._config)
        return [
            sys.executable, "-m", MODULES[Path(program).name], *map(self._with_port, arguments)
        ]  # fmt: skip

    def variables(self) -> dict[str, str]:
        given = units.environment(self.service, self._marks)
        return {name: self._with_port(value) for name, value in given.items()}

    def limit_s(self) -> float:
        return seconds(units.one(self.service, "TimeoutStopSec"))

    def reload(self, pid: int) -> None:
        command = units.one(self.service, "ExecReload").replace("$MAINPID", str(pid))
        subprocess.run(shlex.split(command), check=True)

    def _with_port(self, text: str) -> str:
        return re.sub(r"^127\.0\.0\.1:\d+$", f"127.0.0.1:{self.port}", text)


async def test_each_systemd_service_runs_and_stops_in_its_time(
    tmp_path: Path, redis_url: str
) -> None:
    config = tmp_path / "config.yaml"
    secrets(tmp_path / "secrets", redis_url)
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    parts = {name: OfSystemd(name, tmp_path, config) for name in units.SERVICES}
    bridge = parts["backpack-bridge"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(client))
        async with exchange(config):
            programs = {
                name: stack.enter_context(running(part.argv(), part.variables(), part.folder))
                for name, part in parts.items()
            }
            await eventually_async(
                lambda: programs["backpack-bridge"].answers(bridge.port, "/readyz"),
                "the bridge is ready",
            )
            for name, path in (("backpack-exporter", "/readyz"), ("backpack-console", "/")):
                await eventually_async(
                    lambda name=name, path=path: programs[name].answers(parts[name].port, path),  # type: ignore[misc]
                    name,
                )
            await eventually_async(
                lambda: client.hexists("consumers:status", "candles/here"), "the worker reports"
            )
            await eventually_async(lambda: client.xlen("trade.SOL_USDC"), "a trade is in Redis")
            (tmp_path / "secrets" / "redis_url").chmod(0o600)
            (tmp_path / "secrets" / "redis_url").write_text("redis://:an0ther@127.0.0.1:1/0\n")
            bridge.reload(programs["backpack-bridge"].process.pid)
            await eventually_async(
                lambda: "config_reloaded" in programs["backpack-bridge"].output(),
                "the configuration is reloaded",
            )
            ended = {name: programs[name].stop(parts[name].limit_s()) for name in programs}

    output = programs["backpack-bridge"].output()
    assert "config_needs_restart" in output
    assert "redis.url" in output
    assert "an0ther" not in output
    assert ended == dict.fromkeys(parts, 0), {name: one.output() for name, one in programs.items()}
    assert list((bridge.folder / "data" / "journal").iterdir())  # the folder of the service's state


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each["metadata"]["name"])
async def test_each_container_of_kubernetes_answers_its_probes_and_stops_in_its_time(
    workload: Object, tmp_path: Path, redis_url: str
) -> None:
    [container] = pod_of(workload)["containers"]
    secrets(tmp_path / "secrets", redis_url)
    port = free_port()
    mounted = re.compile(r"^/run/secrets/\w+/")

    def here(text: str) -> str:
        text = mounted.sub(f"{tmp_path}/secrets/", text)
        return text.replace("0.0.0.0:9464", f"127.0.0.1:{port}")

    given = {name: here(value) for name, value in variables(container).items()}
    if workload["kind"] == "StatefulSet":  # the API sets the pod's name as the instance
        given["BRIDGE_INSTANCE"] = f"{workload['metadata']['name']}-0"
        given |= {
            f"{name.upper()}_FILE": str(tmp_path / "secrets" / name)
            for name in ("public_key", "secret_key")
        }
    argv = [sys.executable, "-m", *map(here, container["args"])]
    async with exchange(tmp_path / "config.yaml"):  # the target of the image's link
        with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
            client.hset("bridge:streams", "trade.SOL_USDC", '{"type":"trade","symbol":"SOL_USDC"}')
        with running(argv, given, tmp_path) as program:
            for probe in ("livenessProbe", "readinessProbe"):
                path = container[probe]["httpGet"]["path"]
                eventually(lambda path=path: program.answers(port, path), path)  # type: ignore[misc]
            ended = program.stop(pod_of(workload)["terminationGracePeriodSeconds"])

    assert ended == 0, program.output()
