"""From an event to the fields of a Redis entry, and back.

Flat fields, all fields of a type always written and always in the same order (Redis then stores the
names once a node). Null is the empty string, booleans are `true`/`false`, book sides and rows are
JSON arrays, `extra` comes last: JSON of the fields the contract does not name, empty when none.

It knows the shape of an entry, not the Redis client.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from pydantic import ValidationError

from bridge.contract.entry_form import EXTRA, FLAGS, Encode, EntryForm, compact
from bridge.contract.events import Event, UnknownEvent
from bridge.contract.fields import plain_decimal
from bridge.contract.json_text import parsed
from bridge.contract.own import OWN_MEANINGS
from bridge.contract.stream_types import STREAM_SPECS, StreamSpec, StreamType
from bridge.contract.whole_number import whole_number

EXCHANGE_MODELS: Mapping[StreamType, type[Event]] = {
    kind: spec.model for kind, spec in STREAM_SPECS.items()
}
OWN_MODELS: Sequence[type[Event]] = tuple(OWN_MEANINGS)
MODELS: Sequence[type[Event]] = (*EXCHANGE_MODELS.values(), UnknownEvent, *OWN_MODELS)

UNKNOWN = "unknown_event"


class BadEntry(ValueError):
    """An entry that is not of this contract; the message says which field and why."""


def encode(event: Event) -> list[str]:
    """The entry's values, in the order of `field_names(type(event))`."""
    fields, extra = event.__dict__, event.__pydantic_extra__
    form = _FORMS[event.__class__]
    more = compact(extra) if extra else ""
    return form.encode(form.take(fields), str(fields["received_us"]), more)


def encoder(model: type[Event]) -> Encode:
    """A function of the values of `value_names(model)`, of `received_us` as text, and of `extra` as
    text, that returns what `encode` does.
    """
    return _FORMS[model].encode


def field_names(model: type[Event]) -> tuple[str, ...]:
    """The entry's field names, in their fixed order, `extra` last."""
    return _FORMS[model].names


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
    this version would write: an `unknown_event`, or the event itself. One that is an
    `unknown_event` though its name is known is read as such where it cannot be that event.
    """
    name = fields.get("event" if fields.get("type") == UNKNOWN else "type")
    if not spec.is_private or not name or MODEL_BY_TYPE.get(name) in OWN_MODELS:
        return decode(fields)
    model = spec.model_of(name)
    if model is UnknownEvent:
        return decode_as(model, {**fields, "type": UNKNOWN, "event": name})
    named = {each: text for each, text in fields.items() if each != "event"} | {"type": name}
    try:
        return decode_as(model, named)
    except BadEntry:
        if fields["type"] != UNKNOWN:
            raise
    return decode(fields)


def decode_as(model: type[Event], fields: Mapping[str, str]) -> Event:
    """Read an entry as an event of this model, or raise BadEntry."""
    return _FORMS[model].read_usual([*fields], fields.values()) or _read_any(model, fields)


def decode_flat_as(model: type[Event], flat: list[str]) -> Event:
    """`decode_as`, of an entry as Redis sends it: each field's name followed by its value."""
    names, values = flat[::2], flat[1::2]
    event = _FORMS[model].read_usual(names, values)
    return event or _read_any(model, dict(zip(names, values, strict=True)))


def _read_any(model: type[Event], fields: Mapping[str, str]) -> Event:
    """Read an entry of any form; what it says of one is what holds. Raises BadEntry."""
    form = _FORMS[model]
    try:
        data = _values(form, fields)
        extra = data.pop(EXTRA, None) or {}
        if not isinstance(extra, dict):
            raise TypeError("extra is not a JSON object")  # noqa: TRY301 - told like the others
        if extra:
            _move_named(form, extra, data)
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


def _move_named(form: EntryForm, extra: dict[str, Any], data: dict[str, Any]) -> None:
    """An earlier version did not name these fields, so that they stand in `extra` by their letters
    and have no column. (A field of the exchange that is called as a column of ours has that too.)
    """
    for letter in extra.keys() & form.letters.keys():
        name = form.letters[letter]
        if name not in data:
            data[name] = extra.pop(letter)


def _values(form: EntryForm, fields: Mapping[str, str]) -> dict[str, Any]:
    """An entry's fields as their model takes them: an empty one is none."""
    data: dict[str, Any] = dict(fields)
    for name in form.may_be_empty:
        if data.get(name) == "":
            data[name] = None
    for name in form.whole:
        if (text := data.get(name)) is not None and (number := whole_number(text)) is not None:
            data[name] = number  # validates three times as fast as its digits
    for names, read in ((form.flags, FLAGS.__getitem__), (form.lists, parsed), ((EXTRA,), _extra)):
        for name in names:
            if (text := data.get(name)) is not None:
                data[name] = read(text)
    return data


def complaint(error: ValidationError) -> str:
    """What pydantic found, field by field, without the values themselves."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'message'}: {fault['msg']}"
        for fault in faults[:5]
    )


def _extra(text: str) -> Any:
    """Fractions are the digits they are written with, as when the message was read."""
    return parsed(text, parse_float=plain_decimal, parse_constant=str)


def _types(model: type[Event]) -> tuple[str, ...]:
    return cast("tuple[str, ...]", get_args(model.model_fields["type"].annotation))


MODEL_BY_TYPE: Mapping[str, type[Event]] = {
    name: model for model in MODELS for name in _types(model)
}
_FORMS = {model: EntryForm.of(model) for model in MODELS}
