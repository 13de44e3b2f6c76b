"""The base of all sections of the configuration."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

MOST_S = 1_000_000_000  # thirty years; timeouts of sockets end at three hundred
MOST = 1_000_000_000_000_000  # a double, as Lua has them, is exact up to nine times that


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and all types in it."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


class Section(BaseModel):
    """Frozen; refuses unknown names and out-of-range numbers; errors never show the value."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_flag(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `yes` or `true` for a number, which pydantic takes for 1."""
        if isinstance(value, bool) and info.field_name is not None:
            kinds = set(_parts(cls.model_fields[info.field_name].annotation))
            if bool not in kinds and kinds & {int, float}:
                raise ValueError("must be a number")
        return value

    @field_validator("*")
    @classmethod
    def _is_of_use(cls, value: Any, info: ValidationInfo) -> Any:
        most = MOST_S if (info.field_name or "").endswith("_s") else MOST
        if isinstance(value, int | float) and value > most:
            raise ValueError(f"must be at most {most}")
        return value
