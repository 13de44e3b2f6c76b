"""Outside variables: the process environment over a `.env` file, or one file for each variable.

An empty value counts as not set, so that `.env.example` can be copied unchanged and compose files
can pass variables through. `<NAME>_FILE` names a file that holds the value of NAME, as Docker,
Kubernetes and systemd pass secrets. Only files of requested variables are read: a process need not
have access to the rest. Knows no variable by name and never shows a value.
"""

import io
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from bridge.errors import ConfigError
from bridge.runtime.bounded_file import MOST_SETTINGS, read_bounded

FILE = "_FILE"
MOST_BYTES = 64 * 1024  # of a file with one value

NameFilter = Callable[[str], bool]  # of variables


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable and its source."""

    name: str
    value: str = field(repr=False)
    origin: str


def read_variables(
    environ: Mapping[str, str], env_file: str | Path | None, accepts: NameFilter
) -> dict[str, Variable]:
    """The variables selected by `accepts`, by name; the environment wins over the file, variable by
    variable, and files named by `<NAME>_FILE` are read.

    Raises ConfigError where a file cannot be read or is empty, and where both NAME and NAME_FILE
    are set.
    """
    given = _given(environ, env_file)
    files = _files(given, accepts)
    found = {name: one for name, one in given.items() if accepts(name) and name not in files}
    for pointer, name in files.items():
        for other in found.values():
            if other.name.upper() == name.upper():
                raise ConfigError(
                    f"{other.name} (in {other.origin}) and {pointer} (in {given[pointer].origin}) "
                    "are both set: take one of them away"
                )
        path = Path(given[pointer].value)
        value = read_value(path, f"{pointer} in {given[pointer].origin}")
        found[name] = Variable(name, value, f"the file {path}")
    return found


def value_files(
    environ: Mapping[str, str], env_file: str | Path | None, accepts: NameFilter
) -> dict[str, Path]:
    """Maps `<NAME>_FILE` to the file that it names, for the variables selected by `accepts`."""
    given = _given(environ, env_file)
    return {pointer: Path(given[pointer].value) for pointer in _files(given, accepts)}


def read_value(path: Path, source: str) -> str:
    """The file's content without trailing line ends, which editors and `echo` append. `source` is
    the variable or option that names the file, for messages. Raises ConfigError.
    """
    what = f"{source} names {path}, which"
    try:
        # A pipe could be read only once, a device without end, and opening one may block.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{what} is no file: write the value into a file of its own")
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or "no file can be called so"
        raise ConfigError(f"{what} cannot be read: {why}") from None
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{what} has more than {MOST_BYTES // 1024} KB: it must hold one value")
    try:
        text = content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{what} is not UTF-8 text: write the value alone into it") from None
    if not text.strip():
        raise ConfigError(f"{what} is empty: write the value into it")
    return text


def is_open_to_others(path: Path) -> bool:
    """Whether other users of this machine may read or change the file. False under /run/secrets:
    Docker's default mode is open, which does not matter within a container.
    """
    if os.name != "posix" or path.is_relative_to("/run/secrets"):
        return False
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o007)
    except OSError:
        return False


def _given(environ: Mapping[str, str], env_file: str | Path | None) -> dict[str, Variable]:
    """All variables with a value, unfiltered."""
    found = {
        name: Variable(name, value, str(env_file))
        for name, value in _read_file(env_file).items()
        if value
    }
    found |= {
        name: Variable(name, value, "the environment") for name, value in environ.items() if value
    }
    return found


def _files(given: Mapping[str, Variable], accepts: NameFilter) -> dict[str, str]:
    """Maps `<NAME>_FILE` to NAME."""
    return {
        pointer: pointer[: -len(FILE)]
        for pointer in given
        if pointer.upper().endswith(FILE) and accepts(pointer[: -len(FILE)])
    }


def _read_file(env_file: str | Path | None) -> dict[str, str | None]:
    if env_file is None or not Path(env_file).exists():
        return {}
    try:
        # Read here, since dotenv ignores a folder of that name. No interpolation: `$` is literal.
        text = read_bounded(Path(env_file), MOST_SETTINGS).decode("utf-8-sig")
        return dotenv_values(stream=io.StringIO(text), interpolate=False)
    except OSError as error:
        raise ConfigError(f"{env_file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{env_file} is not UTF-8 text: save it as UTF-8") from error
