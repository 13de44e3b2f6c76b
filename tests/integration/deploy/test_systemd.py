"""The systemd units: systemd accepts them, they are restricted, and secrets come as credentials."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bridge.commands.console import TOKEN
from bridge.runtime.config import config_shape
from bridge.runtime.config_errors import leaves
from bridge.runtime.config_sources import variable_name
from bridge.runtime.keys import PUBLIC_KEY, SECRET_KEY
from tests.integration.deploy import units

EXPOSED_AT_MOST = (
    15  # tenths, as `systemd-analyze security` counts: 100 is a service with all rights
)

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed (Debian: systemd)",
)


def installed(folder: Path) -> Path:
    """Copy the units into a folder, with paths of programs that exist."""
    there = folder / "systemd"
    shutil.copytree(units.FOLDER, there)
    program = folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for file in there.glob("*.service"):
        text = re.sub(r"/opt/backpack-bridge/bin/\S+", str(program), file.read_text("utf-8"))
        file.write_text(text)
    return there


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_systemd
@pytest.mark.parametrize("service", units.SERVICES)
def test_systemd_knows_every_setting(service: str, tmp_path: Path) -> None:
    there = installed(tmp_path)
    name = service.replace("@", "@candles") + ".service"
    if service.endswith("@"):
        (there / name).symlink_to(there / f"{service}.service")

    checked = analyze(there, "verify", "--man=no", str(there / name))

    ours = [line for line in checked.stderr.splitlines() if "backpack-" in line]
    assert ours == []
    assert checked.returncode == 0, checked.stderr


@needs_systemd
@pytest.mark.parametrize("service", units.SERVICES)
def test_services_have_few_rights(service: str, tmp_path: Path) -> None:
    there = installed(tmp_path)

    judged = analyze(
        there, "security", "--offline=true", f"--threshold={EXPOSED_AT_MOST}",
        "--no-pager", str(there / f"{service}.service"),
    )  # fmt: skip

    assert judged.returncode == 0, judged.stdout[-300:] + judged.stderr
    assert "Overall exposure level" in judged.stdout


@pytest.mark.parametrize("service", units.SERVICES)
def test_services_write_to_folders_of_their_own_alone_and_gain_no_rights(service: str) -> None:
    """The weight of each of these settings in the exposure above is too low to be noticed there."""
    wanted = {
        "DynamicUser": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
        "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "",
    }  # fmt: skip
    assert {name: units.one(service, name) for name in wanted} == wanted
    assert "ReadWritePaths" not in units.settings(service)


@pytest.mark.parametrize("service", units.SERVICES)
def test_secrets_are_credentials_and_each_is_named_by_a_variable(service: str) -> None:
    variables = units.environment(service, {"d": "/credentials"})
    files = {name: value for name, value in variables.items() if name.endswith("_FILE")}

    assert set(files.values()) == {f"/credentials/{name}" for name in units.credentials(service)}
    for file in units.credentials(service).values():
        assert file.is_relative_to("/etc/backpack-bridge/secrets")


def test_every_variable_is_a_setting() -> None:
    known = {variable_name(path) for path in leaves(config_shape())}
    known |= {PUBLIC_KEY, SECRET_KEY, TOKEN}
    for service in units.SERVICES:
        for name in units.environment(service, {}):
            assert name.removesuffix("_FILE") in known, service


def test_only_the_bridge_is_given_the_account() -> None:
    given = {service for service in units.SERVICES if "secret_key" in units.credentials(service)}

    assert given == {"backpack-bridge"}


@pytest.mark.parametrize("service", units.SERVICES)
def test_service_is_restarted_after_a_crash_but_not_with_a_wrong_configuration(
    service: str,
) -> None:
    assert units.one(service, "Restart") == "on-failure"
    assert units.one(service, "RestartPreventExitStatus") == "2"
    tries = int(units.one(service, "StartLimitBurst")) * float(units.one(service, "RestartSec"))
    assert tries < float(units.one(service, "StartLimitIntervalSec")), (
        "the restarts never reach the limit"
    )
