"""The machine-readable contract (pure): JSON Schema of every entry, AsyncAPI of every stream.

It is made from the models, so that the two cannot differ. An entry is a set of flat strings, as
Redis returns it; `contentSchema` describes a string that holds JSON. `docs/generate.py` writes the
documents to files.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from bridge.contract import events, keys
from bridge.contract.causes import GapCause
from bridge.contract.entry import MODELS, OWN_MODELS, field_names
from bridge.contract.events import CONTRACT_VERSION, Event
from bridge.contract.fields import EXTRA, OURS
from bridge.contract.own import OWN_MEANINGS, Cause
from bridge.contract.stream_types import STREAM_SPECS, Qualifier, Scope, StreamType
from bridge.contract.streams import DEPTH_WINDOWS, KLINE_INTERVALS

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_UNSIGNED: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$", "maxLength": 64}
_SIGNED: Schema = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$", "maxLength": 64}
_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 128}
_LEVELS: Schema = {
    "type": "array",
    "items": {"type": "array", "prefixItems": [_UNSIGNED, _UNSIGNED], "minItems": 2, "maxItems": 2},
}
_ROWS: Schema = {"type": "array", "items": {"type": "object"}}


def _json(content: Schema) -> Schema:
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": content}


# Compared by equality, since not every annotation can be hashed.
_SCHEMAS: Sequence[tuple[object, Schema]] = (
    (events.Whole, {"type": "string", "pattern": "^[0-9]{1,20}$"}),
    (events.Flag, {"enum": ["true", "false"]}),
    (events.Unsigned, _UNSIGNED),
    (events.Signed, _SIGNED),
    (events.LooseUnsigned, _UNSIGNED),
    (events.LooseSigned, _SIGNED),
    (events.Text, _TEXT),
    (events.Id, _TEXT),
    (Cause, {**_TEXT, "examples": [cause.value for cause in GapCause]}),
    (str, {"type": "string"}),
    (
        events.IsoTime,
        {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}$"},
    ),
    (events.Levels, _json(_LEVELS)),
    (events.Rows, _json(_ROWS)),
)
MEANINGS: Mapping[type[Event], str] = {
    **{spec.model: spec.means for spec in STREAM_SPECS.values()},
    events.UnknownEvent: "An event of the account that this version does not know.",
    **OWN_MEANINGS,
}
_EXTRA: Schema = {"anyOf": [{"const": ""}, _json({"type": "object"})]}


def entry_models() -> Sequence[type[Event]]:
    """Every kind of entry: the exchange's, then the bridge's own."""
    return MODELS


def entry_types(model: type[Event]) -> tuple[str, ...]:
    """The values of the field `type` in entries of this model."""
    return tuple(get_args(model.model_fields["type"].annotation))


def may_be_empty(model: type[Event], attribute: str) -> bool:
    """Whether a field (by the model's own attribute name) may be the empty string."""
    return NoneType in get_args(get_type_hints(model, include_extras=True)[attribute])


def wire_name(model: type[Event], attribute: str) -> str:
    """The exchange's name of a field; empty if the bridge adds it."""
    alias = model.model_fields[attribute].validation_alias
    is_letter = isinstance(alias, str) and not alias.startswith(OURS)
    return cast("str", alias) if is_letter and model not in OWN_MODELS else ""


def meaning(model: type[Event], attribute: str) -> str:
    """The meaning of a field in entries of this model."""
    return EXTRA if attribute == "extra" else model.model_fields[attribute].description or ""


def entry_schema(model: type[Event]) -> Schema:
    """JSON Schema of one kind of entry: its fields as Redis returns them."""
    hints = get_type_hints(model, include_extras=True)
    names = field_names(model)
    properties = {
        name: _described(_field(hints[attribute]), meaning(model, attribute))
        for name, attribute in zip(names, model.model_fields, strict=False)
    }
    properties["extra"] = _described(_EXTRA, meaning(model, "extra"))
    return {
        "title": model.__name__,
        "description": MEANINGS[model],
        "type": "object",
        "properties": properties,
        "required": list(names),
    }


def entries_document() -> Schema:
    """One JSON Schema for any entry of any stream; `$defs` has each kind by its model's name."""
    models = entry_models()
    return {
        "$schema": DIALECT,
        "title": "Entries of backpack-bridge's Redis Streams",
        "description": "Flat fields, all strings; null is the empty string. Fields are written in "
        "the order of `required`. A later version may add fields: ignore what you do not know.",
        "x-contract-version": CONTRACT_VERSION,
        "oneOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in models],
        "$defs": {model.__name__: entry_schema(model) for model in models},
    }


def asyncapi_document() -> Schema:
    """AsyncAPI 3: each stream type as a channel, each kind of entry as a message."""
    channels = dict(_channels())
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "backpack-bridge",
            "version": str(CONTRACT_VERSION),
            "description": "Backpack Exchange's streams as Redis Streams. An address is a Redis "
            "key, behind redis.key_prefix where one is set; a message's payload is the fields of "
            "one stream entry. docs/contract.md describes entry IDs.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"redis": {"host": "127.0.0.1:6379", "protocol": "redis", "pathname": "/0"}},
        "channels": channels,
        "operations": {
            name: {"action": "send", "channel": {"$ref": f"#/channels/{name}"}} for name in channels
        },
        "components": {
            "messages": {model.__name__: _message(model) for model in entry_models()},
            "schemas": {model.__name__: entry_schema(model) for model in entry_models()},
        },
    }


def models_of(kind: StreamType) -> tuple[type[Event], ...]:
    """The models of the entries of a stream of this type."""
    return STREAM_SPECS[kind].models


_SYMBOL: Schema = {"description": "A market, as the exchange spells it."}
_TICKER: Schema = {"description": "A stock's ticker, such as NVDA."}
_INTERVAL: Schema = {"description": "The candle's length.", "enum": list(KLINE_INTERVALS)}
_WINDOW: Schema = {"description": "How long changes are gathered.", "enum": list(DEPTH_WINDOWS)}


def _addresses(kind: StreamType) -> Iterator[tuple[str, Mapping[str, Schema]]]:
    """The forms of a stream type's names, with their parameters."""
    spec = STREAM_SPECS[kind]
    if spec.has_unscoped_name:
        yield kind.value, {}
    if spec.scope is Scope.ACCOUNT:
        return
    about = {"ticker": _TICKER} if spec.scope is Scope.TICKER else {"symbol": _SYMBOL}
    last = "".join(f"{{{name}}}" for name in about)
    if spec.qualifier is Qualifier.INTERVAL:
        yield f"{kind.value}.{{interval}}.{last}", {"interval": _INTERVAL} | about
        return
    yield f"{kind.value}.{last}", about
    if spec.qualifier is Qualifier.WINDOW:
        yield f"{kind.value}.{{window}}.{last}", {"window": _WINDOW} | about


def _channels() -> Iterator[tuple[str, Schema]]:
    for kind in StreamType:
        for address, parameters in _addresses(kind):
            channel: Schema = {"address": address, "messages": _references(models_of(kind))}
            if parameters:
                channel["parameters"] = dict(parameters)
            yield _channel_name(address), channel
    gaps = {"address": keys.GAPS, "messages": _references([events.GapRecord])}
    yield "gaps", gaps
    quarantine = {"address": keys.QUARANTINE, "messages": _references([events.Quarantined])}
    yield "quarantine", quarantine


def _channel_name(address: str) -> str:
    """`depth.{window}.{symbol}` → `depth_window_symbol`."""
    return address.replace(".", "_").replace("{", "").replace("}", "")


def _references(models: Sequence[type[Event]]) -> Schema:
    return {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in models}


def _message(model: type[Event]) -> Schema:
    return {
        "name": model.__name__,
        "summary": MEANINGS[model],
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
    }


def _field(hint: object) -> Schema:
    """Schema of a field from its annotation; `| None` is the empty string."""
    parts = get_args(hint)
    if NoneType in parts:
        [kind] = [part for part in parts if part is not NoneType]
        return {"anyOf": [{"const": ""}, _field(kind)]}
    if get_origin(hint) is Literal:
        return {"enum": list(parts)}
    return next(schema for known, schema in _SCHEMAS if known == hint)


def _described(schema: Schema, description: str) -> Schema:
    return {"description": description, **schema}
