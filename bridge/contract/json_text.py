"""Parsing of JSON from other programs, with a single kind of error (pure)."""

import json
from collections.abc import Callable
from typing import Any


def parsed(
    text: str | bytes,
    *,
    parse_float: Callable[[str], Any] | None = None,
    parse_constant: Callable[[str], Any] | None = None,
) -> Any:
    """The value of the text, by the standard library's parser and its options. Raises ValueError,
    also if it is nested too deeply.
    """
    try:
        return json.loads(text, parse_float=parse_float, parse_constant=parse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
