"""The systemd units as systemd reads them: with drop-ins and expanded `%` specifiers."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from tests.integration.deploy.compose import ROOT

FOLDER = ROOT / "deploy" / "systemd"
SERVICES = ("backpack-bridge", "backpack-consumer@", "backpack-exporter", "backpack-console")

Settings = dict[str, list[str]]  # `ExecStart` → its values, in order


def settings(service: str) -> Settings:
    """The settings of the unit, with the drop-ins that apply to its name."""
    read: Settings = {}
    files = [FOLDER / f"{service}.service", *sorted((FOLDER / "backpack-.service.d").glob("*"))]
    files += sorted((FOLDER / f"{service}.service.d").glob("*"))
    for file in files:
        for line in file.read_text("utf-8").splitlines():
            name, mark, value = line.partition("=")
            if mark and not line.startswith("#"):
                read.setdefault(name, []).append(value)
    return read


def one(service: str, name: str) -> str:
    """The value of a setting that occurs once."""
    [value] = settings(service)[name]
    return value


def expanded(text: str, specifiers: Mapping[str, str]) -> str:
    """`text` with its `%` specifiers replaced."""
    for mark, meaning in specifiers.items():
        text = text.replace(f"%{mark}", meaning)
    return text


def command(service: str, specifiers: Mapping[str, str]) -> list[str]:
    """The command of ExecStart, for an installation in /opt."""
    return shlex.split(expanded(one(service, "ExecStart"), specifiers))


def environment(service: str, specifiers: Mapping[str, str]) -> dict[str, str]:
    pairs = [expanded(each, specifiers).partition("=") for each in settings(service)["Environment"]]
    return {name: value for name, _, value in pairs}


def credentials(service: str) -> dict[str, Path]:
    """The file that is loaded, by name of the credential."""
    pairs = [each.partition(":") for each in settings(service).get("LoadCredential", [])]
    return {name: Path(file) for name, _, file in pairs}
