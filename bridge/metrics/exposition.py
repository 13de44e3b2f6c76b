"""Metrics as values, and rendered as text for Prometheus.

The only module that uses the client library, which is an extra: other modules only create
families. Render in a thread: 2,000 series take 15 ms, which would stall the loop.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import metrics_core

PREFIX = "backpack_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MISSING = (
    "prometheus-client is not installed, which writes this page: "
    "pip install 'backpack-bridge[metrics]'; /healthz and /readyz do without it"
)


class Kind(StrEnum):
    """The type of a metric."""

    COUNTER = "counter"  # only grows, except at a restart; its name ends in _total
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of a catalogue. `name` is without the prefix; `labels` have values of closed sets."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


def metrics_in(names: Mapping[str, object]) -> Sequence[Metric]:
    """The metrics among these names, such as the `globals()` of a module, in their order."""
    return tuple(each for each in names.values() if isinstance(each, Metric))


class Histogram(NamedTuple):
    """Upper bounds in s, the count of each bucket (not cumulative, the last one unbounded), and the
    sum of all values.
    """

    bounds_s: Sequence[float]
    counts: Sequence[int]
    sum_s: float


Values = Mapping[Any, float | Histogram]  # keys: tuples of label values


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its values by label values; () where it has no labels."""

    metric: Metric
    values: Values = field(default_factory=dict)


def is_installed() -> bool:
    """Whether the client library is installed."""
    return find_spec("prometheus_client") is not None


def render(families: Iterable[Family]) -> bytes:
    """The page: the families, and the metrics of the process itself."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(families))
    return generate_latest(registry)


class _Collector:
    """A collector for the client library, which calls it at each scrape."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> "Iterator[metrics_core.Metric]":
        """All families."""
        return map(_family, self._families)


def _family(family: Family) -> "metrics_core.Metric":
    """The family as the client library's type."""
    from prometheus_client import metrics_core

    metric, values = family.metric, family.values
    name, text, labels = metric.full_name, metric.help, metric.labels
    if metric.kind is Kind.HISTOGRAM:
        histogram = metrics_core.HistogramMetricFamily(name, text, labels=labels)
        for of, value in values.items():
            assert isinstance(value, Histogram)
            histogram.add_metric(of, list(_cumulated(value)), value.sum_s)
        return histogram
    made: metrics_core.CounterMetricFamily | metrics_core.GaugeMetricFamily
    if metric.kind is Kind.COUNTER:
        made = metrics_core.CounterMetricFamily(name, text, labels=labels)
    else:
        made = metrics_core.GaugeMetricFamily(name, text, labels=labels)
    for of, value in values.items():
        assert not isinstance(value, Histogram)
        made.add_metric(of, value)
    return made


def _cumulated(histogram: Histogram) -> Iterator[tuple[str, float]]:
    total = 0
    bounds = [*(f"{bound:g}" for bound in histogram.bounds_s), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        yield bound, total
