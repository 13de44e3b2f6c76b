"""The form of a model's entries, and its two generated functions: encoder and decoder (pure).

Each message is encoded, and each entry is decoded by each of its consumers. Looking up for each
value how to do that would be a third of the work; so the encoder, and the decoder of usual entries,
are source code that is generated and compiled once, as dataclasses generate `__init__`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from bridge.contract.causes import GapCause
from bridge.contract.fields import (
    OURS,
    Event,
    Flag,
    Level,
    Levels,
    Rows,
    Whole,
    WholeNumber,
    digits_of,
    schemas_of,
)
from bridge.contract.own import Own
from bridge.contract.whole_number import U64_DIGITS

EXTRA = "extra"
_RECEIVED = "received_us"
FLAGS = {"true": True, "false": False}

compact = json.JSONEncoder(separators=(",", ":")).encode

# An event's values without `received_us`; `received_us` as text; `extra` as text → the entry's
# values.
Encode = Callable[[Sequence[Any], str, str], list[str]]
# An entry's names and values → its event; None: the entry is unusual.
ReadUsual = Callable[[list[str], Iterable[str]], Event | None]


@dataclass(frozen=True, slots=True)
class EntryForm:
    """How the entries of a model are encoded and decoded. Names are those in entries."""

    names: tuple[str, ...]  # in their order, `extra` last
    may_be_empty: tuple[str, ...]
    whole: tuple[str, ...]
    flags: tuple[str, ...]
    lists: tuple[str, ...]
    letters: Mapping[str, str]  # the exchange's letter of each field that it sends → its name
    take: Callable[[Mapping[str, Any]], Sequence[Any]]  # an event's fields → values for `encode`
    encode: Encode
    read_usual: ReadUsual

    @classmethod
    def of(cls, model: type[Event]) -> "EntryForm":
        """The form of a model's entries."""
        fields = [_Field.of(model, name) for name in model.model_fields]
        take, encode = _encoder(model, fields)
        return cls(
            names=(*(field.column for field in fields), EXTRA),
            may_be_empty=(*(field.column for field in fields if field.is_optional), EXTRA),
            whole=tuple(field.column for field in fields if field.is_whole),
            flags=tuple(field.column for field in fields if field.is_flag),
            lists=tuple(field.column for field in fields if field.is_list),
            letters=_letters(model),
            take=take,
            encode=encode,
            read_usual=_usual_reader(model, fields),
        )


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a model, and its column in an entry."""

    name: str
    column: str
    kind: type | None  # the class of its values, if there is only one
    is_optional: bool
    is_whole: bool
    is_flag: bool
    is_list: bool
    is_levels: bool

    @classmethod
    def of(cls, model: type[Event], name: str) -> "_Field":
        field = model.model_fields[name]
        parts = {field.annotation, *get_args(field.annotation)}
        is_flag = bool in parts or Flag in parts
        kind, is_optional = _kind(field.annotation)
        return cls(
            name=name,
            column=_column(model, name),
            kind=kind,
            is_optional=is_optional,
            is_whole=Whole in parts or any(isinstance(one, WholeNumber) for one in field.metadata),
            is_flag=is_flag,
            is_list=not is_flag
            and any(one in (list, Rows, Levels) or get_origin(one) is list for one in parts),
            is_levels=get_args(field.annotation) == (Level,),
        )


def value_names(model: type[Event]) -> tuple[str, ...]:
    """A model's fields without the last, `received_us`, which the bridge adds."""
    *names, last = model.model_fields
    assert last == _RECEIVED, f"{model.__name__} ends with {last}"
    return tuple(names)


def _column(model: type[Event], name: str) -> str:
    # The bridge's own models have no exchange spelling: an alias there is the entry's name.
    if issubclass(model, Own):
        return cast("str", model.model_fields[name].validation_alias or name)
    return name


def _letters(model: type[Event]) -> dict[str, str]:
    if issubclass(model, Own):
        return {}
    letters = {
        cast("str", field.validation_alias or name): name
        for name, field in model.model_fields.items()
    }
    return {letter: name for letter, name in letters.items() if not letter.startswith(OURS)}


def _kind(annotation: Any) -> tuple[type | None, bool]:
    """The class of a field's values, None if there are several, and whether they may be None."""
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


# From an event to an entry ------------------------------------------------------------------------


def _list_text(value: list[Any]) -> str:
    if value and value[0].__class__ is tuple:  # levels: digits only, nothing to escape
        return "[" + ",".join([f'["{price}","{quantity}"]' for price, quantity in value]) + "]"
    return compact(value)


_TEXT: Mapping[type, Callable[[Any], str]] = {
    str: str,
    int: str,
    GapCause: str,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "",
    list: _list_text,
}


def _text(value: Any) -> str:
    return value if value.__class__ is str else _TEXT[value.__class__](value)


def _encoder(
    model: type[Event], fields: Sequence[_Field]
) -> tuple[Callable[[Mapping[str, Any]], Sequence[Any]], Encode]:
    """The functions that take the values out of an event's fields, and that encode them."""
    names = value_names(model)
    texts = [_text_of(field) for field in fields if field.name in names]
    encode = _compiled(
        f"encoder of {model.__name__}",
        "def _made(values, received_us, extra):\n"
        f" {', '.join(names)}, = values\n"
        f" return [{', '.join(texts)}, received_us, extra]",
        {"_text": _text, "_list_text": _list_text},
    )
    return itemgetter(*names), encode


def _text_of(field: _Field) -> str:
    """The expression for the text of a field's value; without a single kind, by its class."""
    form = {
        str: "{0}",
        int: "str({0})",
        bool: '"true" if {0} else "false"',
        list: '_list_text({0}) if {0} else "[]"',  # one side of most depth changes is empty
    }
    if field.kind not in form:
        return f"_text({field.name})"
    text = form[field.kind].format(field.name)
    return f'("" if {field.name} is None else ({text}))' if field.is_optional else text


# From a usual entry to an event -------------------------------------------------------------------


def _usual_reader(model: type[Event], fields: Sequence[_Field]) -> ReadUsual:
    """The decoder of usual entries: all columns of the model in their order, `extra` empty, and
    each value as an encoder writes it. For any other entry it returns None, and `_read_any`
    decides: an entry decoded here must be decoded there as the same event.

    The values are validated as a tuple by the schemas of the model's fields. The event is made as
    pydantic does it, without validating each field again.
    """
    validators = _schemas(model, fields)
    if validators is None:
        return lambda columns, values: None
    names = [field.name for field in fields]
    wholes = [field.name for field in fields if field.is_whole]
    digits = "".join(f"{{{name}}}" for name in wholes)
    short = " and ".join(f"_len({name}) <= {U64_DIGITS}" for name in wholes)
    # Helper names begin with an underscore, which no field's name does.
    source = (
        "def _made(_columns, _values):\n"
        " if _columns != _usual_columns: return None\n"
        f" {', '.join(names)}, _extra = _values\n"
        f" _digits = f'{digits}'\n"
        f" if _extra or not (_digits.isdecimal() and _digits.isascii() and {short}): return None\n"
        " try:\n"
        f"  {', '.join(names)}, = _validate(({', '.join(map(_value_of, fields))},))\n"
        " except (ValueError, KeyError): return None\n"
        " _event = _new(_model)\n"
        f" _set_fields(_event, {{{', '.join(f'{name!r}: {name}' for name in names)}}})\n"
        " _set_extra(_event, {})\n"
        " _set_names(_event, _names.copy())\n"
        " _set_private(_event, None)\n"
        " return _event"
    )
    slots = vars(BaseModel)
    made: ReadUsual = _compiled(
        f"reader of {model.__name__}",
        source,
        {
            "_flags": FLAGS,
            "_int": int,
            "_len": len,
            "_model": model,
            "_names": set(names),
            "_new": object.__new__,
            "_set_extra": slots["__pydantic_extra__"].__set__,
            "_set_fields": slots["__dict__"].__set__,
            "_set_names": slots["__pydantic_fields_set__"].__set__,
            "_set_private": slots["__pydantic_private__"].__set__,
            "_usual_columns": [*(field.column for field in fields), EXTRA],
            "_validate": SchemaValidator(core_schema.tuple_schema(validators)).validate_python,
        },
    )
    return made


def _value_of(field: _Field) -> str:
    """The expression for the input of the field's schema."""
    name = field.name
    if field.is_levels:
        return name  # its schema reads JSON
    if field.is_whole:
        return f"_int({name}) if {name} else None" if field.is_optional else f"_int({name})"
    if field.is_flag:
        return f"_flags[{name}] if {name} else None" if field.is_optional else f"_flags[{name}]"
    return f"{name} or None" if field.is_optional else name


def _schemas(model: type[Event], fields: Sequence[_Field]) -> list[CoreSchema] | None:
    """A schema for each value; None: one of them is neither text, number, flag nor levels."""
    if any(_is_odd(field) for field in fields):
        return None
    known = {name: field["schema"] for name, field in schemas_of(model).items()}
    return [
        core_schema.json_schema(known[field.name])
        if field.is_levels
        else _of_text(known[field.name])
        for field in fields
    ]


def _of_text(schema: Any) -> CoreSchema:
    """The schema of a value that is text already, without the step from a number to its digits."""
    match schema:
        case {"type": "default" | "nullable", "schema": inner}:
            return cast("CoreSchema", {**schema, "schema": _of_text(inner)})
        case {"type": "function-before", "function": {"function": made}, "schema": inner}:
            return cast("CoreSchema", inner if made is digits_of else schema)
    return cast("CoreSchema", schema)


def _is_odd(field: _Field) -> bool:
    if field.is_list:
        return not field.is_levels
    return not (field.is_whole or field.is_flag or field.kind is str)


def _compiled(name: str, source: str, known: dict[str, Any]) -> Any:
    exec(compile(source, f"<{name}>", "exec"), known)
    return known["_made"]
