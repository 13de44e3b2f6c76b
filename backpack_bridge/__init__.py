"""What you import: consumers of your own, reading for research, and every event of the contract.

    from backpack_bridge import Consumer, Delivery, Results, Trade, consumes, read

The public names are those of `consumers`, where each one is described; `backpack_bridge.testing`
tests a consumer without a server. `python -m backpack_bridge` is the command `backpack-bridge`.
The packages `bridge` and `consumers` beside this one hold the code. Their names are common: where
a folder of yours has one of them and is found first, an import from here says so.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumers import *  # noqa: F403 - type checkers follow it, and `consumers.__all__`
    from consumers import __all__ as __all__


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `python -m backpack_bridge` needs none."""
    if name == "__all__" or not name.startswith("_"):
        import_module("backpack_bridge.shadows").check_shadows()
        ours = import_module("consumers")
        if name in ("__all__", *ours.__all__):
            found: object = getattr(ours, name)
            globals()[name] = found  # the next use does not come here
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, also those that have not been used yet."""
    return sorted({*globals(), *import_module("consumers").__all__})
