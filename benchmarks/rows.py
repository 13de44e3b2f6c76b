"""The register of what `make bench` measures. A new row is one decorated function:

    @row("consumers", "kit, shared mode")
    def shared(ground: Ground) -> Sample: ...

It is called once a round, after FLUSHALL, and returns a Sample, or raises Skipped with the reason.
Rows of one table are measured one after the other within each round; the first of a table is the
reference of the others. A module with rows is named in MODULES.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from benchmarks.ground import Ground
from benchmarks.measure import Sample

MODULES = (
    "benchmarks.bridge_rows",
    "benchmarks.loop_rows",
    "benchmarks.least_rows",
    "benchmarks.tool_rows",
    "benchmarks.consumer_rows",
    "benchmarks.group_rows",
    "benchmarks.journal_rows",
)
TABLES = {
    "saturated": "Exchange to Redis, as fast as it goes",
    "paced": "Exchange to Redis, at a fixed rate",
    "latency": "Exchange to a reader of Redis, at a fixed rate",
    "consumers": "Redis to a consumer's handler",
    "workers": "A Cluster of two nodes to the workers of one group",
    "replay": "A journal into an empty Redis, from the command to its end",
    "audit": "A certificate, from the command to its end",
}

Measure = Callable[[Ground], Sample]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    table: str
    name: str
    measure: Measure


_rows: list[Row] = []


def row(table: str, name: str) -> Callable[[Measure], Measure]:
    """Register a function as a row of a table."""

    def register(measure: Measure) -> Measure:
        _rows.append(Row(table, name, measure))
        return measure

    return register


def all_rows() -> list[Row]:
    """Every row, in the order of tables and registration."""
    for module in MODULES:
        import_module(module)
    order = list(TABLES)
    return sorted(_rows, key=lambda each: order.index(each.table))
