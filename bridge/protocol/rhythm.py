"""How long a stream may be silent before something must be wrong with it (pure).

Some tick like a clock. Of the others only their own past tells: ten times the longest silence seen.
Account events, liquidations and what other providers send come when they come: nothing can be said.
"""

from dataclasses import dataclass

from bridge.contract.streams import Stream, StreamType

SECOND_US = 1_000_000
_TICKS_S = {StreamType.MARK_PRICE: 1, StreamType.TICKER: 1, StreamType.OPEN_INTEREST: 60}
_BY_MARKET = (StreamType.DEPTH, StreamType.TRADE, StreamType.BOOK_TICKER)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "month": 31 * 86_400}
TIMES_LONGEST = 10


@dataclass(frozen=True, slots=True)
class Patience:
    """`look_us`: look into it after so much silence. `sure_us`: after so much there is no doubt
    (None: only the exchange can tell whether there was something to say). `probe_us`: asked for
    once more, it must have spoken by then.
    """

    look_us: int
    sure_us: int | None
    probe_us: int


def patience(stream: Stream, longest_us: int, silence_us: int) -> Patience | None:
    """For a stream whose longest silence so far was `longest_us`; None: it cannot be judged.

    `silence_us` is what the shortest patience with a market is; a clock's tick may be late by a
    third of it.
    """
    probe_us = silence_us // 10
    if (tick_s := _TICKS_S.get(stream.type)) is not None:
        limit_us = (tick_s - 1) * SECOND_US * 2 + silence_us // 3
        return Patience(limit_us, limit_us, probe_us + tick_s * SECOND_US * 3 // 2)
    own_us = max(silence_us, TIMES_LONGEST * longest_us)
    if stream.type in _BY_MARKET:
        return Patience(own_us, None, probe_us)
    if stream.type is StreamType.KLINE:
        # a closing frame always comes, of a candle without trades too
        length_s = interval_s(stream.interval)
        sure_us = length_s * SECOND_US + silence_us
        return Patience(min(sure_us, 2 * own_us), sure_us, probe_us + min(length_s, 60) * SECOND_US)
    return None


def interval_s(interval: str) -> int:
    """A candle's length (`1m`: 60); a month has 31 days here."""
    number = "".join(sign for sign in interval if sign.isdigit())
    return int(number) * _UNIT_S[interval[len(number) :]]
