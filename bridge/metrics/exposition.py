"""Metrics as values, and as the text that Prometheus reads.

The only module that knows the client library, which is an extra: what has metrics to tell gives
families, and nothing else of the project depends on it. Make the text in a thread: 2,000 series
take 15 ms, a stall for whatever else the loop does.
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
    """What a number means to who reads it."""

    COUNTER = "counter"  # only grows, but for a restart; its name ends in _total
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


class Histogram(NamedTuple):
    """Upper bounds in s, how many lie under each and over the one before it (and one more: beyond
    all), and the sum of all.
    """

    bounds_s: Sequence[float]
    counts: Sequence[int]
    sum_s: float


Values = Mapping[Any, float | Histogram]  # by the values of the labels, a tuple of texts


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its values, by those of its labels; () where it has none."""

    metric: Metric
    values: Values = field(default_factory=dict)


def is_installed() -> bool:
    """Is the client library there?"""
    return find_spec("prometheus_client") is not None


def render(families: Iterable[Family]) -> bytes:
    """The page: the families, and what the process itself uses."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(families))
    return generate_latest(registry)


class _Collector:
    """What the library asks for its values at each scrape."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> "Iterator[metrics_core.Metric]":
        """All of them."""
        return map(_family, self._families)


def _family(family: Family) -> "metrics_core.Metric":
    """As the library has it."""
    from prometheus_client import metrics_core

    metric, values = family.metric, family.values
    name, told, labels = metric.full_name, metric.help, metric.labels
    if metric.kind is Kind.HISTOGRAM:
        histogram = metrics_core.HistogramMetricFamily(name, told, labels=labels)
        for of, value in values.items():
            assert isinstance(value, Histogram)
            histogram.add_metric(of, list(_cumulated(value)), value.sum_s)
        return histogram
    made: metrics_core.CounterMetricFamily | metrics_core.GaugeMetricFamily
    if metric.kind is Kind.COUNTER:
        made = metrics_core.CounterMetricFamily(name, told, labels=labels)
    else:
        made = metrics_core.GaugeMetricFamily(name, told, labels=labels)
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
