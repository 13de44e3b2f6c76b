"""How long a stream may be silent before something must be wrong with it (pure).

Some tick like a clock. Of the others only their own past tells: ten times the longest silence seen,
but of books never more than three times the shortest patience, so that one stall does not teach to
overlook the next. Trades have no such limit: a look at their history is dear, and many are quiet.
Account events, liquidations and what other providers send come when they come: nothing can be said.
"""

from dataclasses import dataclass

from bridge.contract.streams import Stream, StreamType

SECOND_US = 1_000_000
_TICKS_S = {StreamType.MARK_PRICE: 1, StreamType.TICKER: 1, StreamType.OPEN_INTEREST: 60}
_BY_MARKET = (StreamType.DEPTH, StreamType.TRADE, StreamType.BOOK_TICKER)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "month": 31 * 86_400}
_BOOKS = (StreamType.DEPTH, StreamType.BOOK_TICKER)
TIMES_LONGEST, MOST_TIMES = 10, 3
FORGET_SHARE = 256
LATEST_TICK_US = 3 * SECOND_US  # a tick may be so late in any case: the exchange lags at times


@dataclass(frozen=True, slots=True)
class Patience:
    """`look_us`: look into it after so much silence. `sure_us`: after so much there is no doubt
    (None: only the exchange can tell whether there was something to say). `probe_us`: asked for
    once more, it must have spoken by then.
    """

    look_us: int
    sure_us: int | None
    probe_us: int


@dataclass(slots=True)
class Rhythm:
    """A stream's longest silence that ended by itself; forgotten slowly."""

    longest_us: int = 0
    _asked_us: int = 0
    _cured_until_us: int = 0

    def asked_again(self, now_us: int, probe_us: int) -> None:
        """It was subscribed to once more: what comes soon may have come for that."""
        self._asked_us, self._cured_until_us = now_us, now_us + probe_us

    def spoke(self, before_us: int, now_us: int) -> None:
        """Two messages, one after the other, on one connection."""
        if before_us < self._asked_us <= now_us <= self._cured_until_us:
            return
        faded_us = self.longest_us - self.longest_us // FORGET_SHARE
        self.longest_us = max(faded_us, now_us - before_us)


def patience(stream: Stream, longest_us: int, silence_us: int) -> Patience | None:
    """For a stream whose longest silence so far was `longest_us`; None: it cannot be judged.

    `silence_us` is what the shortest patience with a market is; a clock's tick may be late by a
    third of it, and by three seconds.
    """
    probe_us = silence_us // 10
    if (tick_s := _TICKS_S.get(stream.type)) is not None:
        limit_us = (tick_s - 1) * SECOND_US * 2 + max(silence_us // 3, LATEST_TICK_US)
        return Patience(limit_us, limit_us, probe_us + tick_s * SECOND_US * 3 // 2)
    own_us = max(silence_us, TIMES_LONGEST * longest_us)
    if stream.type in _BOOKS:
        own_us = min(own_us, MOST_TIMES * silence_us)
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
