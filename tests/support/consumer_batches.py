"""Runs one batch through the kit's runner, without Redis."""

from collections.abc import Sequence

from consumers import Consumer
from consumers.kit.api.results import Write
from consumers.kit.handling.batch import BatchRunner
from consumers.kit.handling.entry import ParsedEntry, entry_of
from consumers.kit.handling.yielding import Pace
from consumers.kit.stats import Stats
from tests.support.consumer_entries import START_US


def stats() -> Stats:
    return Stats(lambda: START_US)


async def handle(
    consumer: Consumer, entries: Sequence[ParsedEntry], counted: Stats | None = None
) -> Sequence[Write]:
    """The consumer's writes for these entries. Raises HandlerFailed."""
    runner = BatchRunner(consumer, counted or stats())
    part = await runner.run_together("trade.SOL_USDC", [entry_of(*one) for one in entries], Pace())
    if part.failed is not None:
        raise part.failed
    return part.writes
