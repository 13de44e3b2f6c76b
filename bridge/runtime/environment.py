"""Variables given from outside: the process environment over a `.env` file.

An empty value counts as not set, so that `.env.example` can be copied as it is and compose files
can pass variables through. Knows no variable by name and never shows a value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from bridge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable, and where it was found."""

    name: str
    value: str = field(repr=False)
    origin: str


def read_variables(environ: Mapping[str, str], env_file: str | Path | None) -> dict[str, Variable]:
    """All variables by name; the environment wins over the file, variable by variable.

    Raises ConfigError where the file is there but cannot be read.
    """
    found = {
        name: Variable(name, value, str(env_file))
        for name, value in _read_file(env_file).items()
        if value
    }
    found |= {
        name: Variable(name, value, "the environment") for name, value in environ.items() if value
    }
    return found


def _read_file(env_file: str | Path | None) -> dict[str, str | None]:
    if env_file is None or not Path(env_file).exists():
        return {}
    try:
        # opened here: dotenv passes over a folder of that name; interpolate: `$` is a `$`
        with Path(env_file).open(encoding="utf-8-sig") as stream:
            return dotenv_values(stream=stream, interpolate=False)
    except OSError as error:
        raise ConfigError(f"{env_file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{env_file} is not UTF-8 text: save it as UTF-8") from error
