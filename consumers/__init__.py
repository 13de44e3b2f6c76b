"""Consumers: workers that read the exchange's streams from Redis, and the kit to write your own.

    from consumers import Consumer, Delivery, consumes, read

They know Redis and the contract, never the exchange.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumers.consumer import Consumer, Delivery, Missed, StopWorker
    from consumers.function import consumes
    from consumers.reading import NotUnderstood, Reading, read
    from consumers.results import Results, State
    from consumers.walk import TrimmedAway

__all__ = [
    "Consumer",
    "Delivery",
    "Missed",
    "NotUnderstood",
    "Reading",
    "Results",
    "State",
    "StopWorker",
    "TrimmedAway",
    "consumes",
    "read",
]

_WHERE = {
    "consumer": ("Consumer", "Delivery", "Missed", "StopWorker"),
    "function": ("consumes",),
    "reading": ("NotUnderstood", "Reading", "read"),
    "results": ("Results", "State"),
    "walk": ("TrimmedAway",),
}


def __getattr__(name: str) -> object:
    """Imported when first asked for, so that the door opens before the whole kit is read."""
    for module, names in _WHERE.items():
        if name in names:
            found: object = getattr(import_module(f"consumers.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'consumers' has no attribute {name!r}")
