"""Parses and validates a usual message from its frame in one pass (pure).

Nearly every frame is a message of a public stream in the exchange's usual form. Such a frame is
validated directly from its bytes, by the schemas of its model's fields, and its values are returned
as a tuple: no dict and no event are made.

Any unusual frame is refused here and left to `parse` and `translate`, which decide. So a message
accepted here must be accepted there too, with the same values; one refused here may be valid.
"""

from collections.abc import Callable
from typing import Any

from pydantic_core import CoreConfig, CoreSchema, SchemaValidator, ValidationError, core_schema

from bridge.contract.entry_form import value_names
from bridge.contract.events import Event
from bridge.contract.fields import schemas_of
from bridge.contract.stream_types import STREAM_SPECS, Identity, StreamSpec

# (unused, (the stream's name, (unused, the values of `value_names`)))
Usual = tuple[object, tuple[str, tuple[object, tuple[Any, ...]]]]

Unusual = ValidationError  # what `read_usual` raises


def is_usual(spec: StreamSpec) -> bool:
    """Whether messages of this type are read in one pass: frequent public ones."""
    is_counted = spec.identity is Identity.EVENTS
    return not (spec.is_private or is_counted or spec.model.numbers_as_text)


def _tuple_of(name: str, fields: dict[str, Any]) -> CoreSchema:
    """The schema of an object with exactly these fields, as (an empty dict, their values in order).

    These are the arguments of a dataclass' `__post_init__`: the cheapest result of pydantic.
    """
    return core_schema.dataclass_args_schema(
        name,
        [
            core_schema.dataclass_field(
                each,
                field["schema"],
                kw_only=True,
                init_only=True,
                validation_alias=field.get("validation_alias"),
            )
            for each, field in fields.items()
        ],
        collect_init_only=True,
        extra_behavior="forbid",
    )


def _message(model: type[Event]) -> CoreSchema:
    known = schemas_of(model)
    return _tuple_of(model.__name__, {name: known[name] for name in value_names(model)})


def _frame() -> CoreSchema:
    messages = {
        name: _message(spec.model)
        for spec in STREAM_SPECS.values()
        if is_usual(spec)
        for name in spec.event_names
    }
    fields = {
        "stream": {"schema": core_schema.str_schema(strict=True)},
        "data": {"schema": core_schema.tagged_union_schema(messages, "e")},
    }
    return _tuple_of("Frame", fields)


# Returns the stream's name and the values of a usual message. Raises `Unusual`.
read_usual: Callable[[bytes], Usual] = SchemaValidator(
    _frame(), CoreConfig(cache_strings="keys")
).validate_json
