"""From an event to the fields of a Redis entry, and back.

Flat fields, all fields of a type always written and always in the same order (Redis then stores the
names once a node). Null is the empty string, booleans are `true`/`false`, book sides and rows are
JSON arrays, `extra` comes last: JSON of the fields the contract does not name, empty when none.

It knows the shape of an entry, not the Redis client.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_args

from pydantic import ValidationError

from bridge.contract import events
from bridge.contract.events import Event, Flag, Levels, Rows, Whole, WholeNumber
from bridge.contract.streams import StreamType

EXCHANGE_MODELS: Mapping[StreamType, type[Event]] = {
    StreamType.TRADE: events.Trade,
    StreamType.DEPTH: events.Depth,
    StreamType.BOOK_TICKER: events.BookTicker,
    StreamType.TICKER: events.Ticker,
    StreamType.KLINE: events.Kline,
    StreamType.MARK_PRICE: events.MarkPrice,
    StreamType.OPEN_INTEREST: events.OpenInterest,
    StreamType.LIQUIDATION: events.Liquidation,
    StreamType.EXTERNAL_TICKER: events.ExternalTicker,
    StreamType.STOCK_PRICE: events.StockPrice,
    StreamType.STOCK_INDICATIVE_QUOTE: events.StockIndicativeQuote,
    StreamType.ORDER_UPDATE: events.OrderUpdate,
    StreamType.POSITION_UPDATE: events.PositionUpdate,
    StreamType.BALANCE_UPDATE: events.BalanceUpdate,
    StreamType.RFQ_UPDATE: events.RfqUpdate,
}
OWN_MODELS: Sequence[type[Event]] = (
    events.DepthSnapshot,
    events.OrdersSnapshot,
    events.PositionsSnapshot,
    events.BalancesSnapshot,
    events.Gap,
    events.GapRecord,
    events.Quarantined,
)


_U64_DIGITS = 20


class BadEntry(ValueError):
    """An entry that is not of this contract; the message says which field and why."""


_compact = json.JSONEncoder(separators=(",", ":")).encode


def _list_text(value: list[Any]) -> str:
    if not value:  # one side of most depth changes
        return "[]"
    if value[0].__class__ is tuple:  # levels: digits only, nothing to escape
        return "[" + ",".join([f'["{price}","{quantity}"]' for price, quantity in value]) + "]"
    return _compact(value)


_TEXT: Mapping[type, Callable[[Any], str]] = {
    str: str,
    int: str,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "",
    list: _list_text,
}


def encode(event: Event) -> list[str]:
    """The entry's values, in the order of `field_names(type(event))`."""
    values = [
        value if value.__class__ is str else _TEXT[value.__class__](value)
        for value in event.__dict__.values()
    ]
    extra = event.__pydantic_extra__
    values.append(_compact(extra) if extra else "")
    return values


def field_names(model: type[Event]) -> tuple[str, ...]:
    """The entry's field names, in their fixed order, `extra` last."""
    return _NAMES[model]


def decode(fields: Mapping[str, str]) -> Event:
    """Read an entry (strings, as Redis returns them) back into its event, or raise BadEntry.

    Fields that this version of the contract does not know are kept in the event's `extra`.
    """
    model = MODEL_BY_TYPE.get(fields.get("type", ""))
    if model is None:
        raise BadEntry(f"entry of unknown type {fields.get('type')!r}")
    try:
        data = _read(model, fields)
        extra = data.pop("extra", None) or {}
        if not isinstance(extra, dict):
            raise TypeError("extra is not a JSON object")  # noqa: TRY301 - told like the others
        # the bridge's own models have entry names for aliases, the exchange's have letters
        event = model.__pydantic_validator__.validate_python(
            data, by_alias=model in OWN_MODELS, by_name=True
        )
    except ValidationError as error:
        raise BadEntry(f"{model.__name__} entry: {complaint(error)}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadEntry(f"{model.__name__} entry: {error}") from None
    if extra:
        event.__pydantic_extra__.update(extra)
    return cast("Event", event)


def _read(model: type[Event], fields: Mapping[str, str]) -> dict[str, Any]:
    """An entry's fields as their model takes them: an empty one is none."""
    data: dict[str, Any] = dict(fields)
    for name in _MAY_BE_EMPTY[model]:
        if data.get(name) == "":
            data[name] = None
    for name in _WHOLE[model]:
        text = data.get(name)
        # a number validates three times as fast as its digits
        if text is not None and text.isdecimal() and text.isascii() and len(text) <= _U64_DIGITS:
            data[name] = int(text)
    for name, read in _SPECIAL[model]:
        text = data.get(name)
        if text is not None:
            data[name] = read(text)
    return data


def complaint(error: ValidationError) -> str:
    """What pydantic found, field by field, without the values themselves."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'message'}: {fault['msg']}"
        for fault in faults[:5]
    )


_FLAGS = {"true": True, "false": False}


def _whole(model: type[Event]) -> tuple[str, ...]:
    """The fields that are whole numbers."""
    return tuple(
        _entry_name(model, name)
        for name, field in model.model_fields.items()
        if Whole in (field.annotation, *get_args(field.annotation))
        or any(isinstance(one, WholeNumber) for one in field.metadata)
    )


def _special(model: type[Event]) -> dict[str, Callable[[str], Any]]:
    """How to read the fields that are not plain strings or numbers."""
    readers: dict[str, Callable[[str], Any]] = {"extra": json.loads}
    for name, field in model.model_fields.items():
        parts = {field.annotation, *get_args(field.annotation)}
        if bool in parts or Flag in parts:
            readers[_entry_name(model, name)] = _FLAGS.__getitem__
        elif any(
            part in (list, Rows, Levels) or getattr(part, "__origin__", None) is list
            for part in parts
        ):
            readers[_entry_name(model, name)] = json.loads
    return readers


def _entry_name(model: type[Event], name: str) -> str:
    # The bridge's own models have no exchange spelling: an alias there is the entry's name.
    if model in OWN_MODELS:
        return model.model_fields[name].alias or name
    return name


def _types(model: type[Event]) -> tuple[str, ...]:
    return cast("tuple[str, ...]", get_args(model.model_fields["type"].annotation))


_ALL = (*EXCHANGE_MODELS.values(), *OWN_MODELS)
MODEL_BY_TYPE: Mapping[str, type[Event]] = {name: model for model in _ALL for name in _types(model)}
_NAMES = {
    model: (*(_entry_name(model, name) for name in model.model_fields), "extra") for model in _ALL
}
_MAY_BE_EMPTY = {
    model: (
        *(
            _entry_name(model, name)
            for name, field in model.model_fields.items()
            if type(None) in get_args(field.annotation)
        ),
        "extra",
    )
    for model in _ALL
}
_WHOLE = {model: _whole(model) for model in _ALL}
_SPECIAL = {model: tuple(_special(model).items()) for model in _ALL}
