"""The files of a deployment hold together: what they name is there, and nothing is open that need
not be.
"""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from bridge.runtime.config import load_config
from tests.integration.deploy.compose import ROOT, compose, demo_variables, services

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
LOCKS = ("runtime", "simulator", "demo")
PIN = re.compile(r"^([a-z0-9.-]+)==([^\s;]+)", re.MULTILINE)

# Of the Compose specification, what this file uses.
SERVICE_KEYS = {
    "build", "image", "command", "profiles", "depends_on", "env_file", "environment", "volumes",
    "ports", "healthcheck", "restart", "read_only", "tmpfs", "cap_drop", "security_opt", "logging",
    "stop_grace_period", "deploy",
}  # fmt: skip


def lines(instruction: str) -> list[str]:
    return re.findall(rf"^{instruction}\s+(.+)$", DOCKERFILE, flags=re.MULTILINE)


def stages() -> list[str]:
    return [re.split(r"\s+AS\s+", line)[-1] for line in lines("FROM")]


def copied() -> list[str]:
    """What the image takes from this folder."""
    local = [line.split()[:-1] for line in lines("COPY") if "--from" not in line]
    return [name for names in local for name in names]


def is_sent(name: str) -> bool:
    """Whether .dockerignore lets it through; the last pattern that fits decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fits(name.rstrip("/"), pattern):
            sent = line.startswith("!")
    return sent


def fits(name: str, pattern: str) -> bool:
    parts = Path(name).parts
    heads = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    if pattern.startswith("**/"):
        return any(fnmatch(part, pattern[3:]) for part in parts)
    return any(fnmatch(head, pattern) for head in heads)


@pytest.mark.parametrize("name", copied())
def test_what_the_image_copies_is_there_and_sent(name: str) -> None:
    assert (ROOT / name).exists()
    assert is_sent(name)


@pytest.mark.parametrize(
    "name", [".env", ".git/config", "data/redis/appendonly.aof", "tests/conftest.py", "deploy/x"]
)
def test_secrets_and_ballast_are_not_sent_to_the_builder(name: str) -> None:
    assert not is_sent(name)


def test_the_image_runs_as_nobody_in_particular_and_in_exec_form() -> None:
    assert lines("USER") == ["10001", "10001"]
    for line in (*lines("ENTRYPOINT"), *lines("CMD"), *lines(r" +CMD")):
        assert json.loads(line)


def test_the_stage_made_by_default_is_the_bridge() -> None:
    assert stages()[-1] == "bridge"
    assert {line.split()[0] for line in lines("FROM")} == {
        "python:3.11-slim",
        "packages",
        "base",
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_the_images_packages_are_the_tested_ones(lock: str) -> None:
    tested = dict(PIN.findall((ROOT / "requirements/all.txt").read_text("utf-8")))
    text = (ROOT / f"requirements/{lock}.txt").read_text("utf-8")
    pinned = dict(PIN.findall(text))

    assert pinned.items() <= tested.items()
    assert text.count("\n    --hash=sha256:") >= len(pinned)
    assert "://" not in text


def test_the_locks_hold_everything_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    base, extras = project["dependencies"], project["optional-dependencies"]
    needed = {
        "runtime": base,
        "simulator": [*base, *extras["simulator"]],
        "demo": [*base, *extras["simulator"], *extras["embedded"], "hatchling"],
    }
    for lock, requirements in needed.items():
        pinned = dict(PIN.findall((ROOT / f"requirements/{lock}.txt").read_text("utf-8")))
        names = {re.split(r"[\[><=]", requirement)[0].lower() for requirement in requirements}
        assert names <= set(pinned)


def test_services_use_known_keys_only() -> None:
    for name, service in services().items():
        assert set(service) <= SERVICE_KEYS, name


@pytest.mark.parametrize("variables", [{}, demo_variables()], ids=["live", "demo"])
def test_what_services_name_is_there(variables: dict[str, str]) -> None:
    for service in services(variables).values():
        assert service.get("build", {}).get("target", "bridge") in stages()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() or source in compose()["volumes"]
        for waited_for in service.get("depends_on", {}):
            assert waited_for in services()


def test_services_can_be_scaled() -> None:
    for name, service in services().items():
        assert "container_name" not in service
        assert "ports" not in service or name == "redis"


def test_redis_is_published_to_this_machine_only() -> None:
    assert services()["redis"]["ports"] == ["127.0.0.1:6379:6379"]


def test_only_the_bridge_is_given_the_keys() -> None:
    given = {name for name, service in services().items() if "env_file" in service}

    assert given == {"bridge"}
    for service in services().values():
        assert not {"PUBLIC_KEY", "SECRET_KEY"} & set(service.get("environment", {}))


def test_every_service_has_limits_restarts_and_a_read_only_root() -> None:
    for name, service in services().items():
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert service["restart"] == "unless-stopped", name
        assert service["read_only"] is True, name


def test_only_the_bridge_writes_to_its_data_volume() -> None:
    """The journal lies there; the root is read-only."""
    writing = {
        name
        for name, service in services().items()
        if any(not volume.endswith(":ro") for volume in service.get("volumes", []))
    }

    assert writing == {"bridge", "redis"}
    assert "bridge-data:/app/data" in services()["bridge"]["volumes"]
    [made] = [line for line in lines("RUN") if "mkdir" in line]
    assert made.endswith("chown 10001 data")


def test_the_simulator_runs_in_the_demo_only() -> None:
    assert services()["simulator"]["profiles"] == ["demo"]
    assert demo_variables()["COMPOSE_PROFILES"] == "demo"


def test_the_demo_reads_nothing_of_a_real_bridge() -> None:
    variables = demo_variables()

    assert services(variables)["bridge"]["env_file"][0]["path"] == "deploy/demo.env"
    assert variables["COMPOSE_PROJECT_NAME"] == "backpack-demo"  # volumes of its own
    config = load_config(ROOT / variables["CONFIG_FILE"], None, {})
    assert not config.exchange.is_real
    assert config.exchange.ws_url == "ws://simulator:8000"
