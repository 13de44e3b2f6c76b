"""Consumers: workers that read the exchange's streams from Redis, and the kit to write your own.

    from consumers import Consumer, Delivery, consumes

They know Redis and the contract, never the exchange.
"""

from consumers.consumer import Consumer, Delivery, StopWorker
from consumers.function import consumes
from consumers.results import Results, State

__all__ = ["Consumer", "Delivery", "Results", "State", "StopWorker", "consumes"]
