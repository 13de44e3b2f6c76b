"""Clock difference between this machine and the exchange: its limit and its wording (pure)."""

SKEWED_MS = 1000


def describe_skew(offset_ms: float) -> str:
    """A sentence. `offset_ms`: how far the exchange's clock is ahead of this machine's."""
    word = "behind" if offset_ms > 0 else "ahead of"
    return f"this machine's clock is {abs(offset_ms) / 1000:.1f} s {word} the exchange's"
