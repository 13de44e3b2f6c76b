"""How far this machine's clock may be from the exchange's, and how that is said (pure)."""

SKEWED_MS = 1000


def describe_skew(offset_ms: float) -> str:
    """For people. `offset_ms`: how far the exchange's clock is ahead of this machine's."""
    word = "behind" if offset_ms > 0 else "ahead of"
    return f"this machine's clock is {abs(offset_ms) / 1000:.1f} s {word} the exchange's"
