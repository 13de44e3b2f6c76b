"""YAML written by users, with one kind of error and work in proportion to its length.

PyYAML raises any Python error where a value does not match its type (`2026-02-30`, `!!int x`), and
expands nested aliases and merges without a bound. Knows no setting.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.constructor import ConstructorError

MOST_VALUES = 200_000  # of a document with all its aliases expanded
MOST_SIGNS = 100  # of a number: `1:59:59:…` takes quadratic time
_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_HALF = re.compile("[\ud800-\udfff]")
_BAD = (ArithmeticError, AttributeError, LookupError, ValueError)  # what constructors raise


class BoundedLoader(yaml.SafeLoader):
    """A safe loader that raises YAMLError, and RecursionError for too deep nesting."""

    def get_single_node(self) -> yaml.Node | None:
        """The root node of the document, or None for an empty one."""
        try:
            node: yaml.Node | None = super().get_single_node()
        except _BAD:
            raise _error("found an escape or a number that YAML does not have", self) from None
        if node is not None:
            _size(node, {})
        return node

    def construct_object(
        self,
        node: yaml.Node,
        deep: bool = False,  # noqa: FBT001, FBT002 - PyYAML calls it so
    ) -> Any:
        """The Python value of a node. Raises ConstructorError."""
        if node.tag in _NUMBERS and len(node.value) > MOST_SIGNS:
            raise _error(f"found a number of more than {MOST_SIGNS} signs", node)
        try:
            value = super().construct_object(node, deep)
        except _BAD:
            raise _error(
                "found a value that is none of its kind, so put it in quotes", node
            ) from None
        if isinstance(value, str) and _HALF.search(value):
            raise _error("found half of a character, such as \\ud800", node)
        return value


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The number of values with aliases expanded. Raises ConstructorError, also for a key that
    is no text.
    """
    known = sizes.get(id(node))
    if known is None:
        sizes[id(node)] = 0  # marks a node in progress, so that a cycle is noticed
        known = 1 + sum(_size(each, sizes) for each in _below(node))
        sizes[id(node)] = known
    if not known:
        raise _error("found an alias inside of what it names", node)
    if known > MOST_VALUES:
        raise _error(
            f"found more than {MOST_VALUES:,} values, each alias being what it names", node
        )
    return known


def _below(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag not in _KEYS:
                raise _error("found a name that is no text, so put it in quotes", key)
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _error(problem: str, place: Any) -> ConstructorError:
    mark = place.start_mark if isinstance(place, yaml.Node) else place.get_mark()
    return ConstructorError(None, None, problem, mark)
