"""The object that `status --json` prints, and its schema (pure).

Fields may be added in later versions; existing ones keep their names and meanings.
"""

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from bridge.core.counters import CoreCounters, StreamCounters
from bridge.view.facts import BridgeStatus, StreamStatus, WorkerStatus
from bridge.view.verdict import Level, Verdict
from bridge.view.view_model import State, ViewModel

Schema = dict[str, Any]

_STATE: Schema = {"enum": [state.value for state in State]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_BESIDE = {"streams", "counters"}  # parts of a status that are elsewhere in the document


def status_document(view_model: ViewModel, redis: str, verdict: Verdict) -> dict[str, Any]:
    """The document. `redis`: its URL, masked. `verdict` is empty where a bridge is healthy;
    `reasons` may list minor problems even then.
    """
    is_healthy = verdict.level is not Level.BAD
    return {
        "healthy": is_healthy,
        "verdict": "" if is_healthy else verdict.text,
        "reasons": list(verdict.reasons),
        "redis": redis,
        "now_us": view_model.now_us,
        "quarantined": view_model.quarantined,
        "unreadable": view_model.unreadable,
        "unavailable_shards": {str(shard): why for shard, why in view_model.unavailable.items()},
        "gaps": view_model.gaps,
        "recovered": view_model.recovered,
        "pending": view_model.pending,
        "bridges": [
            bridge.status.model_dump(exclude=_BESIDE)
            | asdict(bridge.status.counters)
            | {"state": bridge.state.value, "since_us": bridge.since_us}
            | {"troubles": list(bridge.troubles)}
            for bridge in view_model.bridges
        ],
        "streams": {
            stream.name: stream.status.model_dump(exclude=_BESIDE)
            | asdict(stream.status.counters)
            | {"entries": stream.entries, "age_us": stream.age_us, "marks": list(stream.marks)}
            | {"received_by": list(stream.received_by)}
            for stream in view_model.streams
        },
        "consumers": [
            consumer.status.model_dump() | {"state": consumer.state.value}
            for consumer in view_model.consumers
        ],
    }


def status_schema() -> Schema:
    """JSON Schema of the document. Times are microseconds since 1970, by the clock that
    docs/operations.md names.
    """
    bridge = _part(BridgeStatus, CoreCounters, state=_STATE, since_us=_COUNT, troubles=_TEXTS)
    stream = _part(
        StreamStatus,
        StreamCounters,
        entries=_COUNT,
        age_us={"anyOf": [_COUNT, {"type": "null"}]},
        marks=_TEXTS,
        received_by=_TEXTS,
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What `status --json` prints",
        **_object(
            {
                "healthy": {"type": "boolean"},
                "verdict": _TEXT,
                "reasons": _TEXTS,
                "redis": _TEXT,
                "now_us": _COUNT,
                "quarantined": _COUNT,
                "unreadable": _COUNT,
                "unavailable_shards": {"type": "object", "additionalProperties": _TEXT},
                "gaps": _COUNT,
                "recovered": _COUNT,
                "pending": _COUNT,
                "bridges": {"type": "array", "items": bridge},
                "streams": {"type": "object", "additionalProperties": stream},
                "consumers": {"type": "array", "items": _part(WorkerStatus, state=_STATE)},
            }
        ),
    }


def _part(model: type[BaseModel], counters: type[Any] | None = None, **more: Schema) -> Schema:
    """Schema of a status, with its counters among its own fields; all are required."""
    fields = {
        name: _field(_annotated(field).json_schema(mode="serialization"))
        for name, field in model.model_fields.items()
        if name not in _BESIDE
    }
    if counters is not None:
        fields |= dict.fromkeys(counters.__dataclass_fields__, _COUNT)
    return _object(fields | more)


def _annotated(field: FieldInfo) -> TypeAdapter[Any]:
    assert field.annotation is not None
    return TypeAdapter(field.annotation)


def _field(schema: Schema) -> Schema:
    """A field's schema without titles, with references to models expanded."""
    definitions = schema.get("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return resolved(definitions[value["$ref"].rpartition("/")[2]])
        kept = {name: resolved(each) for name, each in value.items() if name not in _NOT_SHOWN}
        if "properties" in kept:
            kept["required"] = list(kept["properties"])
        return kept

    found: Schema = resolved(schema)
    return found


_NOT_SHOWN = {"title", "default", "$defs", "description"}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}
