"""How many examples a property is tried with: few in `make test`, more in `make check`."""

from typing import Any

from hypothesis import settings

DEV_EXAMPLES = 20  # of a property that names no number, in the profile `dev`


def examples(count: int, **options: Any) -> settings:
    """Settings for a property whose examples are dear: `count` of them in the profile `dev`, and
    proportionally more in the one that is loaded.
    """
    most = max(1, count * settings().max_examples // DEV_EXAMPLES)
    return settings(max_examples=most, **options)
