"""From an event to the fields of a Redis entry, and back.

Flat fields, all fields of a type always written and always in the same order (Redis then stores the
names once a node). Null is the empty string, booleans are `true`/`false`, book sides and rows are
JSON arrays, `extra` comes last: JSON of the fields the contract does not name, empty when none.

It knows the shape of an entry, not the Redis client.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import ValidationError

from bridge.contract.causes import GapCause
from bridge.contract.events import Event, Flag, Levels, Rows, UnknownEvent, Whole, WholeNumber
from bridge.contract.fields import OURS, plain_decimal
from bridge.contract.json_text import parsed
from bridge.contract.own import OWN_MEANINGS
from bridge.contract.stream_types import STREAM_SPECS, StreamSpec, StreamType
from bridge.contract.whole_number import U64_DIGITS

EXCHANGE_MODELS: Mapping[StreamType, type[Event]] = {
    kind: spec.model for kind, spec in STREAM_SPECS.items()
}
OWN_MODELS: Sequence[type[Event]] = tuple(OWN_MEANINGS)
MODELS: Sequence[type[Event]] = (*EXCHANGE_MODELS.values(), UnknownEvent, *OWN_MODELS)


UNKNOWN = "unknown_event"

_RECEIVED = "received_us"


class BadEntry(ValueError):
    """An entry that is not of this contract; the message says which field and why."""


_compact = json.JSONEncoder(separators=(",", ":")).encode


def _list_text(value: list[Any]) -> str:
    if value and value[0].__class__ is tuple:  # levels: digits only, nothing to escape
        return "[" + ",".join([f'["{price}","{quantity}"]' for price, quantity in value]) + "]"
    return _compact(value)


_TEXT: Mapping[type, Callable[[Any], str]] = {
    str: str,
    int: str,
    GapCause: str,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "",
    list: _list_text,
}


def encode(event: Event) -> list[str]:
    """The entry's values, in the order of `field_names(type(event))`."""
    fields, extra = event.__dict__, event.__pydantic_extra__
    take, encode_values = _ENCODERS[event.__class__]
    more = _compact(extra) if extra else ""
    return encode_values(take(fields), str(fields[_RECEIVED]), more)


def encoder(model: type[Event]) -> Callable[[Sequence[Any], str, str], list[str]]:
    """A function of the values of `value_names(model)`, of `received_us` as text, and of `extra` as
    text, that returns what `encode` does.
    """
    return _ENCODERS[model][1]


def value_names(model: type[Event]) -> tuple[str, ...]:
    """A model's fields but the last, which is the bridge's own: when it received the message."""
    *names, last = model.model_fields
    assert last == _RECEIVED, f"{model.__name__} ends with {last}"
    return tuple(names)


def _text(value: Any) -> str:
    return value if value.__class__ is str else _TEXT[value.__class__](value)


def _encoder(
    model: type[Event],
) -> tuple[Callable[[Mapping[str, Any]], Sequence[Any]], Callable[..., list[str]]]:
    """What takes the values out of an event's fields, and what makes them into texts.

    The latter is written out as source, as dataclasses write `__init__`: each message is encoded,
    and to look up for each value how that is done would be a third of the work from frame to entry.
    """
    names = value_names(model)
    texts = [_text_of(name, *_kind(model, name)) for name in names]
    source = (
        "def encode_values(values, received_us, extra):\n"
        f" {', '.join(names)}, = values\n"
        f" return [{', '.join(texts)}, received_us, extra]"
    )
    known: dict[str, Any] = {"_text": _text, "_list_text": _list_text}
    exec(compile(source, f"<encoder of {model.__name__}>", "exec"), known)
    return itemgetter(*names), known["encode_values"]


def _text_of(name: str, kind: type | None, is_optional: bool) -> str:  # noqa: FBT001
    """The expression for the text of a value of this kind; None: its class must be looked at."""
    form = {
        str: "{0}",
        int: "str({0})",
        bool: '"true" if {0} else "false"',
        list: '_list_text({0}) if {0} else "[]"',  # one side of most depth changes is empty
    }
    if kind not in form:
        return f"_text({name})"
    text = form[kind].format(name)
    return f'("" if {name} is None else ({text}))' if is_optional else text


def _kind(model: type[Event], name: str) -> tuple[type | None, bool]:
    """The one class that a field's values have, if that is so, and whether they may be None."""
    annotation = model.model_fields[name].annotation
    parts = get_args(annotation) if type(None) in get_args(annotation) else (annotation,)
    classes = {_class_of(part) for part in parts if part is not type(None)}
    return classes.pop() if len(classes) == 1 else None, type(None) in parts


def _class_of(annotation: Any) -> type | None:
    if get_origin(annotation) is Annotated:
        return _class_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return str if all(type(each) is str for each in get_args(annotation)) else None
    if get_origin(annotation) is list:
        return list
    return annotation if annotation in (str, int, bool, list) else None


def field_names(model: type[Event]) -> tuple[str, ...]:
    """The entry's field names, in their fixed order, `extra` last."""
    return _NAMES[model]


def decode(fields: Mapping[str, str]) -> Event:
    """Read an entry (strings, as Redis returns them) back into its event, or raise BadEntry.

    Fields that this version of the contract does not know are kept in the event's `extra`. What an
    earlier version kept there, and this one names, becomes its field.
    """
    model = MODEL_BY_TYPE.get(fields.get("type", ""))
    if model is None:
        raise BadEntry(f"entry of unknown type {fields.get('type')!r}")
    return decode_as(model, fields)


def decode_within(spec: StreamSpec, fields: Mapping[str, str]) -> Event:
    """As `decode`, for an entry of a stream of this type that another version may have written.

    Of the account's events one version knows some that another does not. They are read as what
    this version would write: an `unknown_event`, or the event itself.
    """
    name = fields.get("event" if fields.get("type") == UNKNOWN else "type")
    if not spec.is_private or not name or MODEL_BY_TYPE.get(name) in OWN_MODELS:
        return decode(fields)
    model = spec.model_of(name)
    if model is UnknownEvent:
        return decode_as(model, {**fields, "type": UNKNOWN, "event": name})
    return decode_as(
        model, {each: text for each, text in fields.items() if each != "event"} | {"type": name}
    )


def decode_as(model: type[Event], fields: Mapping[str, str]) -> Event:
    """Read an entry as an event of this model, or raise BadEntry."""
    try:
        data = _read(model, fields)
        extra = data.pop("extra", None) or {}
        if not isinstance(extra, dict):
            raise TypeError("extra is not a JSON object")  # noqa: TRY301 - told like the others
        if extra:
            _move_named(model, extra, data)
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


def _move_named(model: type[Event], extra: dict[str, Any], data: dict[str, Any]) -> None:
    """An earlier version did not name these fields, so that they stand in `extra` by their letters
    and have no column. (A field of the exchange that is called as a column of ours has that too.)
    """
    for letter in extra.keys() & _LETTERS[model].keys():
        name = _LETTERS[model][letter]
        if name not in data:
            data[name] = extra.pop(letter)


def _read(model: type[Event], fields: Mapping[str, str]) -> dict[str, Any]:
    """An entry's fields as their model takes them: an empty one is none."""
    data: dict[str, Any] = dict(fields)
    for name in _MAY_BE_EMPTY[model]:
        if data.get(name) == "":
            data[name] = None
    for name in _WHOLE[model]:
        text = data.get(name)
        # a number validates three times as fast as its digits
        if text is not None and text.isdecimal() and text.isascii() and len(text) <= U64_DIGITS:
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


def _extra(text: str) -> Any:
    """Fractions are the digits they are written with, as when the message was read."""
    return parsed(text, parse_float=plain_decimal, parse_constant=str)


def _special(model: type[Event]) -> dict[str, Callable[[str], Any]]:
    """How to read the fields that are not plain strings or numbers."""
    readers: dict[str, Callable[[str], Any]] = {"extra": _extra}
    for name, field in model.model_fields.items():
        parts = {field.annotation, *get_args(field.annotation)}
        if bool in parts or Flag in parts:
            readers[_entry_name(model, name)] = _FLAGS.__getitem__
        elif any(
            part in (list, Rows, Levels) or getattr(part, "__origin__", None) is list
            for part in parts
        ):
            readers[_entry_name(model, name)] = parsed
    return readers


def _entry_name(model: type[Event], name: str) -> str:
    # The bridge's own models have no exchange spelling: an alias there is the entry's name.
    if model in OWN_MODELS:
        return cast("str", model.model_fields[name].validation_alias or name)
    return name


def _names(model: type[Event]) -> tuple[str, ...]:
    return (*(_entry_name(model, name) for name in model.model_fields), "extra")


def _may_be_empty(model: type[Event]) -> tuple[str, ...]:
    names = (
        _entry_name(model, name)
        for name, field in model.model_fields.items()
        if type(None) in get_args(field.annotation)
    )
    return (*names, "extra")


def _letters(model: type[Event]) -> dict[str, str]:
    """The exchange's letter of each field that it sends → the entry's name."""
    if model in OWN_MODELS:
        return {}
    letters = {
        cast("str", field.validation_alias or name): name
        for name, field in model.model_fields.items()
    }
    return {letter: name for letter, name in letters.items() if not letter.startswith(OURS)}


def _types(model: type[Event]) -> tuple[str, ...]:
    return cast("tuple[str, ...]", get_args(model.model_fields["type"].annotation))


MODEL_BY_TYPE: Mapping[str, type[Event]] = {
    name: model for model in MODELS for name in _types(model)
}
_NAMES = {model: _names(model) for model in MODELS}
_MAY_BE_EMPTY = {model: _may_be_empty(model) for model in MODELS}
_LETTERS = {model: _letters(model) for model in MODELS}
_WHOLE = {model: _whole(model) for model in MODELS}
_SPECIAL = {model: tuple(_special(model).items()) for model in MODELS}
_ENCODERS = {model: _encoder(model) for model in MODELS}
