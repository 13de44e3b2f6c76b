"""Removes the account's data, unless it is to be shown (pure)."""

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from bridge.contract.stream_types import STREAM_SPECS, Scope
from bridge.contract.streams import is_private
from bridge.view.facts import Sample, WorkerStatus

_ACCOUNT = tuple(kind.value for kind, spec in STREAM_SPECS.items() if spec.scope is Scope.ACCOUNT)


def public(sample: Sample) -> Sample:
    """The sample without private streams, and without the results that workers made of them."""
    refused = sample.quarantine.last
    is_hidden = refused is not None and not _is_public(refused.get("stream", ""))
    return replace(
        sample,
        streams={n: facts for n, facts in sample.streams.items() if not is_private(n)},
        workers=tuple(_worker(one) for one in sample.workers if not is_all_private(one.patterns)),
        quarantine=replace(sample.quarantine, last=None) if is_hidden else sample.quarantine,
        bridges=tuple(
            bridge.model_copy(
                update={"streams": {n: s for n, s in bridge.streams.items() if not is_private(n)}}
            )
            for bridge in sample.bridges
        ),
    )


def is_all_private(patterns: Iterable[str]) -> bool:
    """Whether a worker with these patterns can read only the account's streams."""
    several = list(patterns)
    return bool(several) and all(is_private(pattern) for pattern in several)


def _worker(status: WorkerStatus) -> WorkerStatus:
    if any(fnmatchcase(name, pattern) for pattern in status.patterns for name in _ACCOUNT):
        return status.model_copy(update={"made": ""})
    return status


def _is_public(name: str) -> bool:
    """Whether a stream is public; a refused frame without a known stream may be private."""
    return bool(name) and not is_private(name)
