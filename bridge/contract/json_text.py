"""JSON that others have written, with one kind of error (pure)."""

import json
from collections.abc import Callable
from typing import Any


def parsed(
    text: str | bytes,
    *,
    parse_float: Callable[[str], Any] | None = None,
    parse_constant: Callable[[str], Any] | None = None,
) -> Any:
    """What the text says, by the standard library's parser and its options. Raises ValueError,
    where it is nested too deeply too.
    """
    try:
        return json.loads(text, parse_float=parse_float, parse_constant=parse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
