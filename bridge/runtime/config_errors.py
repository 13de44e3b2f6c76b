"""Words configuration mistakes: the place, the mistake, and the nearest valid name.

Takes pydantic's list of errors and the places of the values; returns sentences for people.
Never shows a value, since a value may be a secret.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from bridge.runtime.nearest import did_you_mean, nearest

Path = tuple[str | int, ...]
Shape = dict[str, Any]  # names of settings; a group is a nested Shape, a leaf is None
ANY = "*"  # in a shape: any name, which the user chooses

MAX_NAMED = 20  # mistakes that are listed
_SECRET_NAMES = ("public_key", "secret_key")
_UNION_TAGS = ("name", "group")
_KEY = "[key]"


@dataclass
class Origins:
    """Where each value was written: a line of the file, or a variable."""

    file: str
    places: dict[Path, str] = field(default_factory=dict)

    def set_line(self, path: Path, line: int) -> None:
        self.places[path] = f"{self.file} line {line}"

    def set_variable(self, path: Path, place: str) -> None:
        """Record a variable; it replaces the places at and below this path."""
        for below in [each for each in self.places if each[: len(path)] == path]:
            del self.places[below]
        self.places[path] = place

    def of(self, path: Path) -> str:
        """The place of the value, or of the closest enclosing group."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return self.file


def dotted(path: Path) -> str:
    """`redis.url`, `streams[3]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def below(shape: Shape, name: str | int) -> Shape | None:
    """The shape under a name; raises KeyError for an unknown name."""
    found: Shape | None = shape[ANY if ANY in shape else str(name)]
    return found


def leaves(shape: Shape, above: Path = ()) -> Iterator[Path]:
    """Paths of all settings that are not groups."""
    for name, group in shape.items():
        if group is None:
            yield (*above, name)
        else:
            yield from leaves(group, (*above, name))


def leaves_for(path: Path, shape: Shape) -> Iterator[Path]:
    """Paths of all settings that a wrong path may mean: free names of the user are taken from the
    path, and settings under other free names are left out.
    """
    for leaf in leaves(shape):
        at = leaf.index(ANY) if ANY in leaf else len(leaf)
        if at == len(leaf):
            yield leaf
        elif at < len(path) - 1 and leaf[:at] == path[:at]:
            yield (*leaf[:at], path[at], *leaf[at + 1 :])


def sentences(error: ValidationError, origins: Origins, shape: Shape) -> list[str]:
    """One sentence for each mistake: place, setting, mistake, advice. Of many mistakes the first
    ones, and the number of the rest.
    """
    lines = []
    mistakes = error.errors(include_url=False, include_input=False)
    for each in mistakes[:MAX_NAMED]:
        path = _without_tags(each["loc"])
        if each["type"] == "extra_forbidden":
            what = unknown_setting(path, shape)
        else:
            what = f"{dotted(path)} {_predicate(each)}".lstrip()
        lines.append(f"{origins.of(path)}: {what}")
    if len(mistakes) > MAX_NAMED:
        lines.append(f"and {len(mistakes) - MAX_NAMED:,} more mistakes in {origins.file}")
    return list(dict.fromkeys(lines))


def unknown_setting(path: Path, shape: Shape) -> str:
    """`redis.ulr is not a setting; did you mean redis.url?`"""
    name = str(path[-1])
    if name.lower() in _SECRET_NAMES:
        return f"{name} does not belong here: set {name.upper()} in the environment or in .env"
    return f"{dotted(path)} is not a setting{_hint(path, name, shape)}"


def _hint(path: Path, name: str, shape: Shape) -> str:
    known = list(leaves_for(path, shape))
    elsewhere = [dotted(leaf) for leaf in known if leaf[-1] == name]
    if len(elsewhere) == 1:
        return f"; did you mean {elsewhere[0]}?"
    beside = nearest(name, _siblings(path, shape), limit=1)
    if beside:
        return f"; did you mean {dotted((*path[:-1], beside[0]))}?"
    # Siblings are left out: their common prefix would make any two of them look alike.
    return did_you_mean(dotted(path), (dotted(leaf) for leaf in known if leaf[:-1] != path[:-1]))


def _siblings(path: Path, shape: Shape) -> list[str]:
    if len(path) == 3 and path[0] == "streams":
        return ["types", "markets"]
    here: Shape | None = shape
    for part in path[:-1]:
        here = below(here, part) if here and (str(part) in here or ANY in here) else None
    return list(here or ())


def _without_tags(loc: Path) -> Path:
    """The path without the tags that pydantic puts into the location of a stream item, and of a
    name that the user chooses."""
    if len(loc) > 2 and loc[0] == "streams" and loc[2] in _UNION_TAGS:
        return (*loc[:2], *loc[3:])
    return loc[:-1] if loc[-1:] == (_KEY,) else loc


_PREDICATES: Mapping[str, str] = {
    "missing": "is missing",
    "model_type": "must be a group of settings, each on a line of its own",
    "model_attributes_type": "must be a name or a group of types and markets",
    "dict_type": "must be a group of settings, each on a line of its own",
    "tuple_type": "must be a list, such as [a, b]",
    "string_type": "must be text: put it in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "too_short": "is empty: name at least one",
}


def _predicate(each: Mapping[str, Any]) -> str:
    if each["type"] == "value_error":
        return str(each["ctx"]["error"])
    known = _PREDICATES.get(each["type"])
    if each["type"] == "string_pattern_mismatch":  # of names alone
        most = str(each["ctx"]["pattern"]).rpartition(",")[2].removesuffix("}$")
        return f"must be 1 to {most} letters, digits, dots, _ and -"
    return known or str(each["msg"]).replace("Input should", "must").replace("should", "must")
