"""The other bridges on the same streams (pure): whose turn it is, and whom a gap waits for.

Each bridge says each second how far it is (`Word`). Nothing here makes publishing safe, the append
script does that; it only decides who waits. Numbered streams are published by all, the first wins.
The others, whose doubles nobody could tell from two messages at a glance, are published in the
order of the bridges' names: by the first that hears the stream at once, by the next where the
first did not within `TURN_US`.

A bridge alone waits for nobody.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

TURN_US = 2_000_000  # what one bridge has published by then, the next need not
SILENT_US = 5_000_000  # no new word for so long: nobody is there
# A bridge is waited for while it has heard what we had heard so long ago: in its turn to publish,
# and before a mark that nobody listened, since a loaded machine has it seconds behind.
DEAF_US, LAG_US = 3_000_000, 15_000_000
STALE_US = 3_000_000  # a look so old tells nothing of who is there: this process was frozen, say
PATIENCE_US = 30_000_000  # nobody is waited for longer
BEHIND_US = 1  # `Word.oldest_us` of a bridge that does not know how far it is


class Word(BaseModel):
    """What one bridge tells the others. Exchange's times in µs, but for `at_us` and `started_us`,
    which are by the clock of Redis.

    `heard`: stream → up to when it has been heard. `held`: numbered stream → the position its
    waiting message needs before it. `oldest_us`: the oldest numbered message that is not settled,
    0 where all are.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    instance: str
    session: str  # of this process
    host: str = ""
    pid: int = 0
    started_us: int = 0
    at_us: int = 0
    beat: int = 0
    stopped: bool = False
    oldest_us: int = 0
    held: Mapping[str, int] = {}
    heard: Mapping[str, int] = {}


class DeafMark(StrEnum):
    """What becomes of the mark that nobody of this bridge was listening."""

    COVERED = "covered"  # somebody else was: no mark
    WAIT = "wait"  # somebody else may have been
    TRUE = "true"


@dataclass(slots=True)
class _Peer:
    """By our clock: the word was seen first at `since_us` (while Redis was away does not count);
    at `after_us` it had not been said yet.
    """

    word: Word
    since_us: int
    after_us: int = 0


class Company:
    """The other bridges, as far as one bridge knows. Times are the caller's clock, in µs.

    `knows` is False until the first look: until then nothing is published that has an order of
    bridges, and no gap is written.
    """

    def __init__(self) -> None:
        self.knows = True
        self.rank = 0
        self.live: Mapping[str, Word] = {}
        self.marks: Mapping[str, int] = {}  # stream → all until then (exchange's µs) is in it
        self._resumed_us = 0
        self._looked_us: int | None = None
        self._peers: dict[str, _Peer] = {}
        self._unbroken = False  # no look has failed since the last one
        self._turns: dict[str, int] = {}
        self._heard_by_others: frozenset[str] = frozenset()
        self._heard_before: deque[tuple[int, Mapping[str, int]]] = deque()

    def expect(self) -> None:
        """Others may be there: wait for the first look."""
        self.knows = False

    def resumed(self, now_us: int) -> None:
        """Publishing goes on after a pause: others have had no chance either."""
        self._resumed_us = now_us

    def look_failed(self) -> None:
        """Redis did not answer: silence says nothing about anybody."""
        self._unbroken = False

    def look(
        self,
        me: Word,
        words: Iterable[Word],
        marks: Mapping[str, int],
        *,
        redis_us: int,
        now_us: int,
    ) -> None:
        """What all the bridges said last was read, at `redis_us` by the clock of Redis."""
        self._take(me.instance, words, redis_us, now_us)
        self.marks = marks
        self.live = {
            name: peer.word
            for name, peer in self._peers.items()
            if not peer.word.stopped and now_us - peer.since_us < SILENT_US
        }
        self.rank = sum(name < me.instance for name in self.live)
        self._judge(me, now_us)
        self._looked_us = now_us
        self.knows = self._unbroken = True

    def turn_us(self, stream: str) -> int:
        """How long after hearing it a message of a stream that has an order is ours to publish."""
        return self._turns.get(stream, 0)

    def hears(self, stream: str) -> bool:
        """Does another bridge hear this stream now?"""
        return stream in self._heard_by_others

    def waits_from_us(self, heard_us: int) -> int:
        """From when on the time to hold a message counts that was heard at `heard_us`."""
        return max(heard_us, self._resumed_us) if self.live else heard_us

    def may_mark(
        self, stream: str, after: int, moment_us: int, *, waited_since_us: int, now_us: int
    ) -> bool:
        """Can nobody bring what is missing before the message at `after`, of `moment_us`?"""
        if not self.knows or self._is_stale(now_us):
            return False
        if now_us - max(waited_since_us, self._resumed_us) >= PATIENCE_US:
            return True
        return not any(_may_fill(word, stream, after, moment_us) for word in self.live.values())

    def judge_deafness(self, stream: str, to_us: int, now_us: int) -> DeafMark:
        """We did not hear a stream until `to_us`: did somebody else?"""
        if self.marks.get(stream, 0) >= to_us:
            return DeafMark.COVERED
        if self._is_stale(now_us):
            return DeafMark.WAIT
        asked_us = max(to_us, self._resumed_us)
        waited_us = now_us - asked_us
        if not self.live or waited_us >= PATIENCE_US:
            return DeafMark.TRUE
        have_spoken = all(self._peers[name].after_us >= asked_us for name in self.live)
        if self.hears(stream) or not have_spoken or waited_us < (self.rank + 1) * TURN_US:
            return DeafMark.WAIT
        return DeafMark.TRUE

    def _is_stale(self, now_us: int) -> bool:
        since_us = now_us - self._looked_us if self._looked_us is not None else 0
        return STALE_US <= since_us < PATIENCE_US

    def _take(self, mine: str, words: Iterable[Word], redis_us: int, now_us: int) -> None:
        """Note who has said something new."""
        found: dict[str, _Peer] = {}
        for word in words:
            if word.instance == mine:
                continue
            known = self._peers.get(word.instance)
            if known is None:
                is_old = redis_us - word.at_us >= SILENT_US
                found[word.instance] = _Peer(word, now_us - SILENT_US if is_old else now_us)
            elif (known.word.session, known.word.beat) != (word.session, word.beat):
                found[word.instance] = _Peer(word, now_us, self._looked_us or 0)
            else:
                is_live = word.instance in self.live
                since_us = known.since_us if self._unbroken or not is_live else now_us
                found[word.instance] = _Peer(known.word, since_us, known.after_us)
        self._peers = found

    def _judge(self, me: Word, now_us: int) -> None:
        """Who hears what, and what is our turn."""
        self._heard_before.append((now_us, me.heard))
        while len(self._heard_before) > 1 and now_us - self._heard_before[1][0] >= LAG_US:
            self._heard_before.popleft()
        lately, before = self._had_heard(now_us - DEAF_US), self._had_heard(now_us - LAG_US)
        ahead: dict[str, int] = {}
        by_others: set[str] = set()
        for name, word in self.live.items():
            for stream, heard_us in word.heard.items():
                if heard_us >= before.get(stream, 0):
                    by_others.add(stream)
                if name < me.instance and heard_us >= lately.get(stream, 0):
                    ahead[stream] = ahead.get(stream, 0) + 1
        self._turns = {stream: count * TURN_US for stream, count in ahead.items()}
        self._heard_by_others = frozenset(by_others)

    def _had_heard(self, until_us: int) -> Mapping[str, int]:
        """Up to when we had heard each stream then; nothing where that is not known."""
        return next(
            (heard for at_us, heard in reversed(self._heard_before) if at_us <= until_us), {}
        )


def _may_fill(word: Word, stream: str, after: int, moment_us: int) -> bool:
    """May this bridge still bring what comes before `after`?"""
    if stream in word.held:
        return word.held[stream] < after
    if word.oldest_us and word.oldest_us <= moment_us:
        return True
    heard_us = word.heard.get(stream)
    return heard_us is not None and heard_us < moment_us
