"""Whole numbers that others have written as text (pure)."""

U64_DIGITS = 20


def whole_number(text: str, most_digits: int = U64_DIGITS) -> int | None:
    """The number that the text is; None where it is none, or has more digits than that: Python
    raises where it is to read some thousands.
    """
    if text.isascii() and text.isdecimal() and len(text) <= most_digits:
        return int(text)
    return None
