"""The console's only import of the consumers' kit, which defines groups, dead letters and books.

No other module of the bridge imports `consumers`; an import rule enforces it.
"""

from consumers.kit.api.results import is_entry_id
from consumers.kit.handling.dead_letters import DeadLetters, StoredDeadLetter
from consumers.kit.lag import GroupLag, StreamLag, Worker, group_lags
from consumers.kit.order_book import OrderBook
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.registry import FIRST_SHARD

__all__ = [
    "FIRST_SHARD",
    "DeadLetters",
    "GroupLag",
    "Keys",
    "OrderBook",
    "StoredDeadLetter",
    "StreamLag",
    "Worker",
    "group_lags",
    "is_entry_id",
]
