"""What the events' fields are made of (pure): their types, the base of all events, and what the
fields that stand in many of them mean.
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
    """A whole number, or its digits as a string: the wire has been seen to use either.

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
    """A whole number as its digits; anything else as it is."""
    return str(value) if type(value) is int else value


_MAX_EXPONENT = 3  # with its sign
_MAX_DIGITS = 64  # 28 decimals have been seen; nothing real is longer


def plain_decimal(number: str) -> str:
    """A JSON number with a fraction or an exponent as the contract holds it: its own digits,
    without exponent (`3.4e-6`: `0.0000034`). One that would be longer than any real number stays as
    it is written, and fits no decimal field.
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
# Printed as JSON numbers by the documentation, or never captured: either form is taken.
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


# Fields that the bridge adds are read from the wire under no name that the exchange could send, so
# that a field of the exchange's with the same name is kept as its own.
OURS = "bridge:"

# What these fields mean wherever they stand.
KIND = "what this entry is"
MARKET = "the market, as the exchange spells it"
SENT = "when the exchange's WebSocket server sent it, µs since 1970"
MATCHED = "when it happened in the matching engine, µs since 1970"
READ = "when the bridge read it, µs since 1970, by the bridge's own clock"
OCCURRENCE = "how many messages of equal content came before this one on the same connection"
EXTRA = "JSON object of fields the exchange sent that this contract does not name yet"
NEVER = "always empty"


class Event(BaseModel):
    """What every event has. Subclasses put their own fields between `symbol` and the times.

    `received_us` is this side's wall clock when the frame was read, microseconds since 1970.
    `event_us` is the exchange's `E` (when its WebSocket server emitted), `engine_us` its `T`
    (matching engine); either is None where the type has none.
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
    """What pydantic made of each field of a model: `schema`, and `validation_alias` where there is
    one. Models of events judge nothing but their fields.
    """
    schema: Any = model.__pydantic_core_schema__
    assert (schema["type"], schema["schema"]["type"]) == ("model", "model-fields"), model
    return cast("dict[str, Any]", schema["schema"]["fields"])
