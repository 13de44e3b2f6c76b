"""The public package: consumers of your own, reading for research, every event of the contract.

    from backpack_bridge import Consumer, Delivery, Results, Trade, consumes, read

It re-exports the public names of `consumers`; `backpack_bridge.testing` tests a consumer without a
server. `python -m backpack_bridge` is the command `backpack-bridge`.
The packages `bridge` and `consumers` beside this one hold the code. Their names are common: where
a folder of yours with one of these names is found first, an import from here raises ImportError.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumers import *  # noqa: F403 - type checkers follow it, and `consumers.__all__`
    from consumers import __all__ as __all__


def __getattr__(name: str) -> object:
    """Import a public name on first use: `python -m backpack_bridge` needs none."""
    if name == "__all__" or not name.startswith("_"):
        import_module("backpack_bridge.shadows").check_shadows()
        ours = import_module("consumers")
        if name in ("__all__", *ours.__all__):
            value: object = getattr(ours, name)
            globals()[name] = value  # later uses bypass this function
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, including those not imported yet."""
    return sorted({*globals(), *import_module("consumers").__all__})
