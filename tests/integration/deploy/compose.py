"""docker-compose.yml as Compose reads it: merged, and with its variables replaced."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

ROOT = Path(__file__).parents[3]
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")


def compose(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The whole file, with `variables` set in the environment or in the file of --env-file."""
    document: dict[str, Any] = interpolated(_written(), variables or {})
    return document


@cache
def _written() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


def services(variables: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose(variables)["services"]
    return found


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """Replace variables in values only, as Compose does."""
    if isinstance(value, dict):
        return {key: interpolated(below, variables) for key, below in value.items()}
    if isinstance(value, list):
        return [interpolated(below, variables) for below in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: variables.get(found[1]) or found[2] or "", value)
    return value


def demo_variables() -> dict[str, str]:
    """The variables that `--env-file deploy/demo.env` sets."""
    return {name: value or "" for name, value in dotenv_values(ROOT / "deploy/demo.env").items()}
