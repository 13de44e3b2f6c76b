"""The deployment files are consistent: all names exist, and no unneeded port or right is open."""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values

from bridge.runtime.config import load_config
from bridge.runtime.redis_url import parse_redis_url
from tests.integration.deploy.compose import ROOT, compose, demo_variables, interpolated, services

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
LOCKS = ("runtime", "simulator", "demo")
PIN = re.compile(r"^([a-z0-9.-]+)==([^\s;]+)", re.MULTILINE)

# The keys of the Compose specification that this file uses.
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
    """The files and folders that the Dockerfile copies from this folder."""
    local = [line.split()[:-1] for line in lines("COPY") if "--from" not in line]
    return [name for names in local for name in names]


def is_sent(name: str) -> bool:
    """Whether .dockerignore lets `name` through; the last matching pattern decides."""
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
def test_files_copied_into_the_image_exist_and_are_sent(name: str) -> None:
    assert (ROOT / name).exists()
    assert is_sent(name)


@pytest.mark.parametrize(
    "name", [".env", ".git/config", "data/redis/appendonly.aof", "tests/conftest.py", "deploy/x"]
)
def test_secrets_and_ballast_are_not_sent_to_the_builder(name: str) -> None:
    assert not is_sent(name)


def test_the_image_runs_as_an_unprivileged_user_and_in_exec_form() -> None:
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
        names = {re.split(r"[\[><=;]", each)[0].lower().replace(".", "-") for each in requirements}
        assert names <= set(pinned)


def test_services_use_known_keys_only() -> None:
    for name, service in services().items():
        assert set(service) <= SERVICE_KEYS, name


@pytest.mark.parametrize("variables", [{}, demo_variables()], ids=["live", "demo"])
def test_names_in_services_exist(variables: dict[str, str]) -> None:
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
        assert "ports" not in service or name in ("prometheus", "grafana")


def test_ports_are_published_on_this_machine_only() -> None:
    ports = {name: one["ports"] for name, one in services().items() if "ports" in one}

    assert ports == {"prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"]}


def test_redis_is_published_where_that_is_requested_and_to_this_machine_only() -> None:
    written = yaml.safe_load((ROOT / "deploy/redis-port.yml").read_text("utf-8"))
    assert interpolated(written, {}) == {"services": {"redis": {"ports": ["127.0.0.1:6379:6379"]}}}


def test_only_the_bridge_is_given_the_keys() -> None:
    given = {name for name, service in services().items() if "env_file" in service}

    assert given == {"bridge"}
    for service in services().values():
        assert not {"PUBLIC_KEY", "SECRET_KEY"} & set(service.get("environment", {}))


def test_every_service_has_limits_restarts_and_a_read_only_root() -> None:
    for name, service in services().items():
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        ends = name == "redis-cluster"  # it exits once the nodes have formed the Cluster
        assert service["restart"] == ("on-failure" if ends else "unless-stopped"), name
        assert service["read_only"] is True, name


def test_only_the_bridge_writes_to_its_data_volume() -> None:
    """The journal is on the volume; the root file system is read-only."""
    writing = {
        name
        for name, service in services().items()
        if any(not volume.endswith(":ro") for volume in service.get("volumes", []))
    }

    servers = {name for name in services() if name.startswith(("redis", "sentinel"))}
    assert writing == {"bridge", "prometheus", "grafana"} | servers - {"redis-cluster"}
    assert "bridge-data:/app/data" in services()["bridge"]["volumes"]
    [made] = [line for line in lines("RUN") if "mkdir" in line]
    assert made.endswith("chown 10001 data")


@pytest.mark.parametrize("variables", [{}, demo_variables()], ids=["live", "demo"])
def test_a_folder_is_mounted_as_configuration_so_that_a_replaced_file_is_seen(
    variables: dict[str, str],
) -> None:
    mounted = {
        volume.rpartition(":/app/config:ro")[0]
        for service in services(variables).values()
        for volume in service.get("volumes", [])
        if volume.endswith(":/app/config:ro")
    }
    [folder] = mounted

    assert load_config(ROOT / folder / "config.yaml", None, {}).stream_names
    assert "ln -s config/config.yaml config.yaml" in lines("RUN")


def test_a_key_in_a_file_reaches_the_bridge_alone_at_the_path_of_the_variable() -> None:
    written = yaml.safe_load((ROOT / "deploy/secrets.yml").read_text("utf-8"))
    secrets = interpolated(written, {})["secrets"]
    [(name, given)] = written["services"].items()

    assert name == "bridge"
    assert {name: str(Path(one["file"])) for name, one in secrets.items()} == {
        name: f"secrets/{name}" for name in given["secrets"]
    }
    assert given["environment"] == {
        f"{name.upper()}_FILE": f"/run/secrets/{name}" for name in given["secrets"]
    }
    assert "secrets/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_a_set_of_servers_runs_only_where_it_is_requested() -> None:
    for profile in ("sentinel", "cluster"):
        file = dotenv_values(ROOT / "deploy" / f"{profile}.env")
        variables = {name: value or "" for name, value in file.items()}
        servers = {
            name for name, one in services(variables).items() if one.get("profiles") == [profile]
        }
        hosts = re.findall(r"[\w-]+(?=:\d)", variables["REDIS_URL"])

        assert variables["COMPOSE_PROFILES"] == profile
        assert variables["COMPOSE_PROJECT_NAME"] == f"backpack-{profile}"  # has its own volumes
        assert set(hosts) <= {"redis", *servers}
        parse_redis_url(variables["REDIS_URL"])
        for name in ("bridge", "candles", "exporter"):
            url = services(variables)[name]["environment"]["BRIDGE_REDIS__URL"]
            assert url == variables["REDIS_URL"]


def test_monitoring_runs_only_if_requested() -> None:
    profiles = {name: one.get("profiles") for name, one in services().items()}

    watching = ("exporter", "prometheus", "grafana")
    assert {profiles[name] == ["observability"] for name in watching} == {True}


def test_prometheus_scrapes_where_bridge_and_exporter_listen() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]
    }
    listening = services()["bridge"]["environment"]["BRIDGE_METRICS__LISTEN"]

    assert jobs == {
        "backpack-bridge": ["bridge:" + listening.rpartition(":")[2]],
        "backpack-exporter": [
            "exporter:" + services()["exporter"]["command"][-1].rpartition(":")[2]
        ],
    }
    [rules] = config["rule_files"]
    assert (ROOT / "deploy/prometheus" / rules).exists()


def test_the_simulator_runs_in_the_demo_only() -> None:
    assert services()["simulator"]["profiles"] == ["demo"]
    assert demo_variables()["COMPOSE_PROFILES"] == "demo"


def test_the_workflow_runs_make_check_on_each_supported_python() -> None:
    text = (ROOT / ".github/workflows/check.yml").read_text("utf-8")
    job = yaml.safe_load(text)["jobs"]["check"]
    steps = [step.get("run", step.get("uses", "")) for step in job["steps"]]
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    pythons = job["strategy"]["matrix"]["python"]

    assert f">={pythons[0]}" == oldest["requires-python"]
    assert pythons == [
        name.rpartition(" ")[2] for name in oldest["classifiers"] if "Python :: 3." in name
    ]
    assert [step.partition("@")[0] for step in steps[:2]] == [
        "actions/checkout",
        "actions/setup-python",
    ]
    assert steps[-1] == "make check"


def test_demo_uses_no_settings_of_a_real_bridge() -> None:
    variables = demo_variables()

    assert services(variables)["bridge"]["env_file"][0]["path"] == "deploy/demo.env"
    assert variables["COMPOSE_PROJECT_NAME"] == "backpack-demo"  # has its own volumes
    config = load_config(ROOT / variables["CONFIG_DIR"] / "config.yaml", None, {})
    assert not config.exchange.is_real
    assert config.exchange.ws_url == "ws://simulator:8000"
