"""Whole numbers in text from other programs (pure)."""

U64_DIGITS = 20


def whole_number(text: str, most_digits: int = U64_DIGITS) -> int | None:
    """The number, or None if the text is not one or has more digits than that (Python's `int`
    raises on some thousands of digits).
    """
    if text.isascii() and text.isdecimal() and len(text) <= most_digits:
        return int(text)
    return None
