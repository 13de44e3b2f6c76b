"""The number of examples of a property: few in `make test`, more in `make check`."""

from typing import Any

from hypothesis import settings

DEV_EXAMPLES = 20  # for a property without a number of its own, in profile `dev`


def examples(count: int, **options: Any) -> settings:
    """Settings for a property with expensive examples: `count` of them in the profile `dev`, and
    proportionally more in the loaded profile.
    """
    most = max(1, count * settings().max_examples // DEV_EXAMPLES)
    return settings(max_examples=most, **options)
