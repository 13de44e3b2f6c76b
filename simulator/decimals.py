"""Whole numbers of ticks and steps, formatted as the exchange's decimals.

The model counts in whole ticks and steps, so it never rounds. Knows nothing of markets or frames.
"""

from __future__ import annotations

from decimal import Decimal


def padded(units: int, places: int) -> str:
    """12300 units of two places as "123.00": the WebSocket's format of prices and quantities."""
    if places == 0:
        return str(units)
    sign = "-" if units < 0 else ""
    digits = str(abs(units)).rjust(places + 1, "0")
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def trimmed(units: int, places: int) -> str:
    """12300 units of two places as "123": the format of REST and the ticker."""
    return without_zeros(padded(units, places))


def without_zeros(text: str) -> str:
    """Remove trailing zeros of the fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def exact(units: int, places: int) -> Decimal:
    """The number as a Decimal."""
    return Decimal(units).scaleb(-places)


def plain(value: Decimal) -> str:
    """A Decimal without exponent and without trailing zeros; zero is "0"."""
    text = without_zeros(format(value, "f"))
    return "0" if text in ("-0", "") else text
