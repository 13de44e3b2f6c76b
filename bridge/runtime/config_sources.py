"""Reads configuration from a YAML file and from variables that begin with BRIDGE_.

Both become a tree of plain values, and the place of each value is recorded, so that a mistake can
be reported with file and line. Gets the names of the settings as a tree and judges no value.
"""

from collections.abc import Mapping
from pathlib import Path as FilePath

import yaml

from bridge.contract.json_text import parsed
from bridge.errors import ConfigError
from bridge.runtime.bounded_file import MOST_SETTINGS, read_bounded
from bridge.runtime.bounded_yaml import BoundedLoader
from bridge.runtime.config_errors import (
    ANY,
    MAX_NAMED,
    Origins,
    Path,
    Shape,
    below,
    dotted,
    leaves_for,
)
from bridge.runtime.environment import Variable
from bridge.runtime.nearest import nearest

PREFIX = "BRIDGE_"
BETWEEN = "__"
MOST_VARIABLES = 2_000  # each is merged into the tree of those before it
Tree = dict[str, object]


def merged(base: Mapping[str, object], over: Mapping[str, object]) -> Tree:
    """`over` merged into `base`, group by group; any other value is replaced whole."""
    result = dict(base)
    for key, value in over.items():
        present = result.get(key)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            result[key] = merged(present, value)
        else:
            result[key] = value
    return result


def read_yaml(path: FilePath, origins: Origins) -> Tree:
    """The file as a tree; records the line of each value. Raises ConfigError."""
    text = _read_text(path)
    try:
        loader = BoundedLoader(text)
        node = loader.get_single_node()
        if node is None:
            return {}
        _note_lines(node, (), origins, set())
        tree = loader.construct_document(node)
        if tree is None:
            return {}  # only `---` and comments
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_mistake(path, error)) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply: settings have two levels") from None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} must be settings by name, such as `redis:` and below it `url: …`"
        )
    return tree


def _read_text(path: FilePath) -> str:
    try:
        return read_bounded(path, MOST_SETTINGS).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist: give another file with --config, or have `init` write one"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def _yaml_mistake(path: FilePath, error: yaml.YAMLError) -> str:
    """The message: place and problem, never the line itself, which may hold a password."""
    mark = getattr(error, "problem_mark", None)
    where = f"{path} line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
    problem = getattr(error, "problem", None) or "it holds characters that YAML does not allow"
    return f"{where}: this is not valid YAML ({problem}): check indentation, colons and quotes"


def _note_lines(node: yaml.Node, path: Path, origins: Origins, seen: set[int]) -> None:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            line = key.start_mark.line + 1
            if here in origins.places:
                raise ConfigError(f"{origins.file} line {line}: {dotted(here)} is written twice")
            origins.set_line(here, line)
            _note_lines(value, here, origins, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            origins.set_line((*path, index), value.start_mark.line + 1)
            _note_lines(value, (*path, index), origins, seen)


def is_setting(name: str) -> bool:
    """Whether a variable's name begins with the prefix, in any case."""
    return name.upper().startswith(PREFIX)


def variables_tree(variables: Mapping[str, Variable], shape: Shape, origins: Origins) -> Tree:
    """All BRIDGE_ variables as a tree; names are case-insensitive.

    Raises ConfigError, one line for each variable that is not a setting; of many the first ones.
    """
    if len(variables) > MOST_VARIABLES:
        raise ConfigError(
            f"{len(variables):,} variables begin with {PREFIX}, and at most {MOST_VARIABLES:,} are "
            "read: write the settings into the configuration's file"
        )
    tree: Tree = {}
    mistakes: list[str] = []
    for variable in variables.values():
        path = _path_of(variable.name, shape)
        if path is None:
            if len(mistakes) < MAX_NAMED:
                mistakes.append(_unknown_variable(variable, shape))
            continue
        origins.set_variable(path, f"{variable.name} in {variable.origin}")
        tree = merged(tree, _nested(path, _value(variable, path, shape)))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return tree


def variable_name(path: Path) -> str:
    """`BRIDGE_REDIS__URL` for `redis.url`."""
    return PREFIX + BETWEEN.join(str(part).upper() for part in path)


def _path_of(name: str, shape: Shape) -> Path | None:
    here: Shape | None = shape
    path: Path = ()
    for part in name[len(PREFIX) :].split(BETWEEN):
        is_free = here is not None and ANY in here  # a group's name, in lower case
        known = (
            {part.upper(): part.lower()} if is_free else {one.upper(): one for one in here or ()}
        )
        spelled = known.get(part.upper())
        if here is None or not spelled:
            return None
        path = (*path, spelled)
        here = below(here, spelled)
    return path


def _unknown_variable(variable: Variable, shape: Shape) -> str:
    # Compared without prefix and group, which would make any two names look alike.
    written = variable.name[len(PREFIX) :].upper()
    group, _, name = written.rpartition(BETWEEN)
    path = tuple(part.lower() for part in written.split(BETWEEN))
    names = [variable_name(leaf).removeprefix(PREFIX) for leaf in leaves_for(path, shape)]
    beside = {each.rpartition(BETWEEN)[2]: each for each in names if _group(each) == group}
    hits = [beside[hit] for hit in nearest(name, beside, limit=1)]
    hits = hits or nearest(written, [each for each in names if _group(each) != group], limit=1)
    hint = f"; did you mean {PREFIX}{hits[0]}?" if hits else ""
    return f"{variable.name} in {variable.origin} is not a setting{hint}"


def _group(name: str) -> str:
    return name.rpartition(BETWEEN)[0]


def _value(variable: Variable, path: Path, shape: Shape) -> object:
    """The variable's value: JSON for a list or a whole group, None for `null` (limit off)."""
    text = variable.value.strip()
    is_group = _at(path, shape) is not None
    if text == "null":
        return None
    if not is_group and not text.startswith("["):
        return variable.value
    try:
        return parsed(text)
    except ValueError:
        rule = (
            f"names a group: write {variable.name}{BETWEEN}…, or the whole group as JSON"
            if is_group
            else 'must be a list in JSON, such as ["trade.SOL_USDC"]'
        )
        raise ConfigError(f"{variable.name} in {variable.origin} {rule}") from None


def _at(path: Path, shape: Shape) -> Shape | None:
    here: Shape | None = shape
    for part in path:
        here = below(here, part) if here else None
    return here


def _nested(path: Path, value: object) -> Tree:
    for part in reversed(path):
        value = {str(part): value}
    assert isinstance(value, dict)
    return value
