"""The types of the events' fields, the base of all events, and the meanings of common fields
(pure).
"""

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Strict,
    StringConstraints,
)
from pydantic_core import core_schema

U64_MAX = 2**64 - 1


class WholeNumber:
    """A whole number, or its digits as a string: both have been seen on the wire.

    Strict otherwise: neither `true` nor `1.0` is a whole number.
    """

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        number = core_schema.int_schema(strict=True, ge=0, le=U64_MAX)
        digits = core_schema.chain_schema(
            [
                core_schema.str_schema(strict=True, pattern=r"^[0-9]{1,20}$"),
                core_schema.int_schema(ge=0, le=U64_MAX),
            ]
        )
        return core_schema.union_schema(
            [number, digits],
            mode="left_to_right",
            custom_error_type="whole_number",
            custom_error_message="should be a whole number from 0 to 2^64-1, or its digits",
        )


def digits_of(value: object) -> object:
    """A whole number as its digits; any other value unchanged."""
    return str(value) if type(value) is int else value


_MAX_EXPONENT = 3  # with its sign
_MAX_DIGITS = 64  # 28 decimals have been seen; nothing real is longer


def plain_decimal(number: str) -> str:
    """A JSON number with a fraction or an exponent in the contract's form: its own digits, without
    exponent (`3.4e-6`: `0.0000034`). A number that would be unrealistically long is returned
    unchanged, and is invalid in any decimal field.
    """
    mantissa, _, exponent = number.lower().partition("e")
    if not exponent or len(exponent) > _MAX_EXPONENT or len(mantissa) > _MAX_DIGITS:
        return number
    plain = format(Decimal(number), "f")
    return plain if len(plain) <= _MAX_DIGITS else number


def has_fraction(value: object) -> bool:
    """Whether a parsed JSON value holds a number with a fraction or an exponent, at any depth."""
    if isinstance(value, dict):
        return any(map(has_fraction, value.values()))
    if isinstance(value, list):
        return any(map(has_fraction, value))
    return isinstance(value, float)


Whole = Annotated[int, WholeNumber()]
Flag = Annotated[bool, Strict()]
Unsigned = Annotated[
    str, StringConstraints(strict=True, max_length=_MAX_DIGITS, pattern=r"^[0-9]+(\.[0-9]+)?$")
]
Signed = Annotated[
    str, StringConstraints(strict=True, max_length=_MAX_DIGITS, pattern=r"^-?[0-9]+(\.[0-9]+)?$")
]
# JSON numbers in the exchange's documentation, or never captured: both forms are accepted.
LooseSigned = Annotated[Signed, BeforeValidator(digits_of)]
LooseUnsigned = Annotated[Unsigned, BeforeValidator(digits_of)]
Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128)]
Id = Annotated[Text, BeforeValidator(digits_of)]  # a string of digits, or the integer itself
IsoTime = Annotated[
    str,
    StringConstraints(
        strict=True, pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}$"
    ),
]
Side = Literal["Bid", "Ask"]
Level = tuple[Unsigned, Unsigned]  # price, quantity
Levels = Annotated[list[Level], Field(max_length=20_000)]
Rows = list[dict[str, Any]]


# The alias of a field that the bridge adds has this prefix, which no name of the exchange has: so a
# field of the exchange with the same name as ours is not mistaken for it.
OURS = "bridge:"

# The meanings of common fields.
KIND = "what this entry is"
MARKET = "the market, as the exchange spells it"
SENT = "when the exchange's WebSocket server sent it, µs since 1970"
MATCHED = "when it happened in the matching engine, µs since 1970"
READ = "when the bridge read it, µs since 1970, by the bridge's own clock"
OCCURRENCE = "how many messages of equal content came before this one on the same connection"
EXTRA = "JSON object of fields the exchange sent that this contract does not name yet"
NEVER = "always empty"


class Event(BaseModel):
    """The base of all events. Subclasses have their own fields between `symbol` and the times.

    Times are µs since 1970. `received_us`: when the frame was read, by our wall clock. `event_us`:
    the exchange's `E` (when its WebSocket server sent it). `engine_us`: its `T` (matching engine).
    The last two are None if the type has none.
    """

    model_config = ConfigDict(
        frozen=True, extra="allow", hide_input_in_errors=True, validate_by_name=True
    )

    numbers_as_text: ClassVar[bool] = False  # JSON numbers are accepted in decimal fields
    type: str

    @property
    def extra(self) -> dict[str, Any]:
        """Fields of the exchange that the contract does not name yet."""
        return self.__pydantic_extra__ or {}


def schemas_of(model: type[Event]) -> dict[str, Any]:
    """Pydantic's core schema of each field of a model: `schema`, and `validation_alias` if there is
    one. Models of events validate nothing but their fields.
    """
    schema: Any = model.__pydantic_core_schema__
    assert (schema["type"], schema["schema"]["type"]) == ("model", "model-fields"), model
    return cast("dict[str, Any]", schema["schema"]["fields"])
