"""Consumers: workers that read the exchange's streams from Redis, and the kit to write your own.

    from consumers import Consumer, Delivery, consumes, read

They know Redis and the contract, never the exchange.
"""

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
