"""Encodes an event as the fields of a Redis entry, and decodes it (pure).

Fields are flat; all fields of a type are always written, in the same order (Redis then stores the
names once for each node of the stream). Null is the empty string, booleans are `true`/`false`, book
sides and rows are JSON arrays. `extra` is last: JSON of the fields that the contract does not name,
empty if there are none.
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
    """An entry that is not of this contract; the message names the field and the reason."""


def encode(event: Event) -> list[str]:
    """The entry's values, in the order of `field_names(type(event))`."""
    fields, extra = event.__dict__, event.__pydantic_extra__
    form = _FORMS[event.__class__]
    more = compact(extra) if extra else ""
    return form.encode(form.take(fields), str(fields["received_us"]), more)


def encoder(model: type[Event]) -> Encode:
    """A function like `encode`, of the values of `value_names(model)`, `received_us` as text, and
    `extra` as text.
    """
    return _FORMS[model].encode


def field_names(model: type[Event]) -> tuple[str, ...]:
    """The entry's field names, in their fixed order, `extra` last."""
    return _FORMS[model].names


def decode(fields: Mapping[str, str]) -> Event:
    """Decode an entry (strings, as Redis returns them) into its event. Raises BadEntry.

    Fields that this version of the contract does not know are kept in the event's `extra`. A value
    that an earlier version kept in `extra`, and that this one names, becomes its field.
    """
    model = MODEL_BY_TYPE.get(fields.get("type", ""))
    if model is None:
        raise BadEntry(f"entry of unknown type {fields.get('type')!r}")
    return decode_as(model, fields)


def decode_within(spec: StreamSpec, fields: Mapping[str, str]) -> Event:
    """As `decode`, for an entry of a stream of this type that another version may have written.

    Versions know different account events. An entry is decoded as this version would write it: an
    `unknown_event`, or the event itself. An `unknown_event` with a known name stays one if it is
    invalid as that event.
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
    """Decode an entry as an event of this model. Raises BadEntry."""
    return _FORMS[model].read_usual([*fields], fields.values()) or _read_any(model, fields)


def decode_flat_as(model: type[Event], flat: list[str]) -> Event:
    """`decode_as` for an entry as Redis sends it: each field's name followed by its value."""
    names, values = flat[::2], flat[1::2]
    event = _FORMS[model].read_usual(names, values)
    return event or _read_any(model, dict(zip(names, values, strict=True)))


def _read_any(model: type[Event], fields: Mapping[str, str]) -> Event:
    """Decode an entry of any form; its result is authoritative. Raises BadEntry."""
    form = _FORMS[model]
    try:
        data = _values(form, fields)
        extra = data.pop(EXTRA, None) or {}
        if not isinstance(extra, dict):
            raise TypeError("extra is not a JSON object")  # noqa: TRY301 - handled below
        if extra:
            _move_named(form, extra, data)
        # aliases are entry names in the bridge's own models, the exchange's letters in the rest
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
    """Move fields from `extra` that an earlier version did not name: they are in `extra` by their
    letters and have no column. (With the column present, the letter is another field of the
    exchange.)
    """
    for letter in extra.keys() & form.letters.keys():
        name = form.letters[letter]
        if name not in data:
            data[name] = extra.pop(letter)


def _values(form: EntryForm, fields: Mapping[str, str]) -> dict[str, Any]:
    """An entry's fields as input of their model: an empty one is None."""
    data: dict[str, Any] = dict(fields)
    for name in form.may_be_empty:
        if data.get(name) == "":
            data[name] = None
    for name in form.whole:
        if (text := data.get(name)) is not None and (number := whole_number(text)) is not None:
            data[name] = number  # validated three times as fast as its digits
    for names, read in ((form.flags, FLAGS.__getitem__), (form.lists, parsed), ((EXTRA,), _extra)):
        for name in names:
            if (text := data.get(name)) is not None:
                data[name] = read(text)
    return data


def complaint(error: ValidationError) -> str:
    """The errors that pydantic found, by field, without the values."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'message'}: {fault['msg']}"
        for fault in faults[:5]
    )


def _extra(text: str) -> Any:
    """The value of `extra`; fractions keep their digits, as when the message was read."""
    return parsed(text, parse_float=plain_decimal, parse_constant=str)


def _types(model: type[Event]) -> tuple[str, ...]:
    return cast("tuple[str, ...]", get_args(model.model_fields["type"].annotation))


MODEL_BY_TYPE: Mapping[str, type[Event]] = {
    name: model for model in MODELS for name in _types(model)
}
_FORMS = {model: EntryForm.of(model) for model in MODELS}
