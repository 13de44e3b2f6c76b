"""The other bridges on the same streams: who publishes at once, and whom a gap waits for (pure).

Each bridge writes a `PeerStatus` each second and reads those of the others. Nothing here makes
publishing safe, the append script does that; it only decides who waits, and how long.

Sequenced streams are published by all bridges, and the first copy wins. Content streams are
published in an order, since a duplicate there is told with more effort: the first bridge by name
that receives a stream publishes at once, the next one what is missing `PUBLISH_DELAY_US` later, and
so on.

A bridge that does not receive a stream, or has an unsettled outage in it, comes last, whatever its
name: it waits for all that have received the stream for longer (see `Peers.uncovered`). Everything
is judged for each stream alone: bridges may receive different ones.

A bridge alone waits for none. Times are µs: `now_us`, `at_us` and `waited_since_us` are by this
bridge's steady clock, by which all waiting is counted; moments of messages by the exchange's.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from bridge.runtime.keyspace import KeySpace

PUBLISH_DELAY_US = 2_000_000  # what a bridge has published by then, the next one need not
GONE_US = 5_000_000  # no new status for so long: the bridge is not running
# A peer receives a stream while it has what this bridge had so long ago: to publish in its turn,
# and to be waited for with an outage, since a bridge on a loaded machine can be seconds behind.
PUBLISH_DELAY_LAG_US, LAG_US = 3_000_000, 15_000_000
STALE_POLL_US = 3_000_000  # a poll so old proves nothing: this process was frozen, say
PATIENCE_US = 30_000_000  # no peer is waited for longer
BEHIND_US = 1  # `PeerStatus.oldest_us` of a bridge that does not know how far it is


class PeerStatus(BaseModel):
    """What one bridge tells the others. Exchange's times in µs, but for `at_us` and `started_us`,
    which are by the clock of Redis.

    `received`: stream → up to when all of it has been received, where no outage is unsettled.
    `unsettled`: the other streams that are received → since when, behind the last outage: what came
    since waits until that is settled. `held`: sequenced stream → the position that its waiting
    message needs before it. `oldest_us`: the oldest sequenced message that is not in Redis, 0 where
    all are.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    instance: str
    session: str  # of this process
    member: str = ""  # of a fleet that shares the streams; empty: it receives all
    host: str = ""
    pid: int = 0
    started_us: int = 0
    at_us: int = 0
    beat: int = 0
    stopped: bool = False
    oldest_us: int = 0
    held: Mapping[str, int] = {}
    received: Mapping[str, int] = {}
    unsettled: Mapping[str, int] = {}

    def may_fill(self, stream: str, after: int, moment_us: int) -> bool:
        """Whether this bridge may still bring what is missing before a message of `moment_us`,
        which needs the position `after` before it.
        """
        if stream in self.held:
            return self.held[stream] < after
        # It may be behind with anything, the streams that it will only know later too.
        if self.oldest_us and self.oldest_us <= moment_us:
            return True
        received_us = self.received.get(stream)
        return received_us is not None and received_us < moment_us


class OutageVerdict(StrEnum):
    """What becomes of an outage of this bridge."""

    COVERED = "covered"  # all of it is in Redis: nothing is written
    WAIT = "wait"  # another bridge may have received it
    REAL = "real"  # no bridge has: it is written


@dataclass(frozen=True, slots=True)
class _Peer:
    """`since_us`: when this status was read first (the time while Redis was unavailable does not
    count);
    `after_us`: it was written after that.
    """

    status: PeerStatus
    since_us: int
    after_us: int = 0


class Peers:
    """The other bridges, as far as one bridge knows.

    `is_known` is False from `expect` to the first `update`: until then nothing is published that
    has an order of bridges, and no gap is written, but for streams that it `does_without` (see
    `unread`). `rank`: how many live bridges are before this one by name. `watermarks`: stream →
    everything until then is in Redis.
    """

    def __init__(self, space: KeySpace | None = None) -> None:
        self._space = space or KeySpace()
        self.is_known = True
        self.rank = 0
        self.live: Mapping[str, PeerStatus] = {}
        self.watermarks: Mapping[str, int] = {}
        self._resumed_us: dict[int, int] = {}  # by shard
        self._peers: dict[str, _Peer] = {}
        self._polled_us: int | None = None
        self._is_unbroken = False  # no poll has failed since the last one that did not
        self._polls = 0  # failed ones too
        self._unread_since_us: int | None = None
        self.does_without = False
        self._delays_us: dict[str, int] = {}
        self._received_by_peers: frozenset[str] = frozenset()
        self._received_by_members: frozenset[tuple[str, str]] = frozenset()  # member, stream
        # streams with unsettled outages of peers: since when any of them receives it, and its name
        self._unsettled: dict[str, tuple[int, str]] = {}
        self._received_before: deque[tuple[int, Mapping[str, int]]] = deque()
        # Streams that are not received, or were not lately, and from which poll on our own status
        # counts for them.
        self._counts_from: dict[str, int] = {}

    # ---- what happens ------------------------------------------------------------------------

    def expect(self) -> None:
        """There may be peers: wait for the first poll."""
        self.is_known = False

    def unread(self, now_us: int) -> bool:
        """The first poll has failed. Of several shards the first one has what bridges say of each
        other; the others are not kept waiting for it longer than for a bridge: then this one comes
        last in their streams, and marks what no other has brought in as long again. Returns whether
        it is so.
        """
        if self._unread_since_us is None:
            self._unread_since_us = now_us
        is_over = now_us - self._unread_since_us >= PATIENCE_US
        self.does_without = self._space.shards > 1 and is_over
        return self.does_without

    def resumed(self, now_us: int, shard: int = 0) -> None:
        """Publishing goes on after a pause: the others could not publish there either."""
        self._resumed_us[shard] = now_us

    def poll_failed(self) -> None:
        """Redis did not answer: that no status is new proves nothing."""
        self._is_unbroken = False
        self._polls += 1

    def update(
        self,
        me: PeerStatus,
        statuses: Iterable[PeerStatus],
        watermarks: Mapping[str, int],
        *,
        redis_us: int,
        now_us: int,
    ) -> None:
        """What all bridges wrote last was read, at `redis_us` by the clock of Redis; `me` is what
        this one wrote.
        """
        self._polls += 1
        self._note(me.instance, statuses, redis_us, now_us)
        self.watermarks = watermarks
        self.live = {
            name: peer.status
            for name, peer in self._peers.items()
            if not peer.status.stopped and now_us - peer.since_us < GONE_US
        }
        self.rank = sum(name < me.instance for name in self.live)
        self._order(me, now_us)
        self._polled_us = now_us
        self.is_known = self._is_unbroken = True
        self.does_without = False

    def uncovered(self, streams: Iterable[str]) -> None:
        """This bridge does not receive these streams any more. Where peers receive them, it comes
        last in them, from now until it receives them again and the outage between is settled.
        """
        # The first messages of a new subscription are newer than what was missed. Peers may hold
        # that for their publish delay, while this bridge's outage is not in its queue yet. If it
        # published at once, states that they hold would be overtaken: lost without a gap.
        #
        # A status made before this may be under way to Redis, and says that the streams are
        # received. The first that counts is the next one.
        for name in streams:
            self._counts_from[name] = self._polls + 2
            if name in self._received_by_peers or name in self._unsettled:
                self._delays_us[name] = self._last_publish_delay_us()

    # ---- whose turn it is --------------------------------------------------------------------

    def publish_delay_us(self, stream: str) -> int:
        """How long after a message was received it is this bridge's to publish, in a stream that
        has an order of bridges.
        """
        return self._delays_us.get(stream, LAG_US + PUBLISH_DELAY_US if self.does_without else 0)

    def may_publish(self, stream: str) -> bool:
        """Whether this bridge may publish in an order of bridges, and write gaps."""
        return self.is_known or (self.does_without and self._space.shard_of(stream) > 0)

    def receives(self, stream: str) -> bool:
        """Whether another bridge receives this stream now."""
        return stream in self._received_by_peers

    def member_receives(self, member: str, stream: str) -> bool:
        """Whether a bridge that is this member of the fleet receives this stream now, and what it
        did not receive of it before is settled.
        """
        return (member, stream) in self._received_by_members

    def is_received(self, stream: str) -> bool:
        """Whether another bridge receives this stream, be it behind an outage."""
        return stream in self._received_by_peers or stream in self._unsettled

    def hold_from_us(self, stream: str, at_us: int) -> int:
        """From when the time counts for which a message is held that was received at `at_us`."""
        return max(at_us, self._resumed_at_us(stream)) if self.live else at_us

    # ---- what is missing ---------------------------------------------------------------------

    def may_mark_gap(
        self, stream: str, after: int, moment_us: int, *, waited_since_us: int, now_us: int
    ) -> bool:
        """Whether no peer can bring what is missing before a message of `moment_us`, which needs
        the position `after` before it.
        """
        if not self.may_publish(stream) or self._is_stale(now_us):
            return False
        if now_us - max(waited_since_us, self._resumed_at_us(stream)) >= PATIENCE_US:
            return True
        if not self.is_known:
            return False  # who there is, is not known
        return not any(peer.may_fill(stream, after, moment_us) for peer in self.live.values())

    def judge_outage(
        self, stream: str, to_us: int, *, waited_since_us: int, now_us: int
    ) -> OutageVerdict:
        """What becomes of an outage of this bridge that ended at `to_us` (exchange's time), which
        is known since `waited_since_us`.
        """
        if self.watermarks.get(stream, 0) >= to_us:
            return OutageVerdict.COVERED
        if self._is_stale(now_us):
            return OutageVerdict.WAIT
        asked_us = max(waited_since_us, self._resumed_at_us(stream))
        waited_us = now_us - asked_us
        if waited_us >= PATIENCE_US or not (self.live or self.does_without):
            return OutageVerdict.REAL
        if self.does_without:
            return OutageVerdict.WAIT
        # A status from before the outage was known does not say whether the peer came through it.
        have_told = all(self._peers[name].after_us >= asked_us for name in self.live)
        # Of several bridges with the same outage the first by name writes it, so that the watermark
        # behind it tells the others that it is settled.
        is_turn = waited_us >= (self.rank + 1) * PUBLISH_DELAY_US
        if self._may_cover(stream, to_us) or not have_told or not is_turn:
            return OutageVerdict.WAIT
        return OutageVerdict.REAL

    # ---- inside ------------------------------------------------------------------------------

    def _resumed_at_us(self, stream: str) -> int:
        """When the stream's shard was connected to last."""
        return self._resumed_us.get(self._space.shard_of(stream), 0)

    def _may_cover(self, stream: str, to_us: int) -> bool:
        """Whether a peer has received the end of an outage that ended then."""
        # Where the peer has an outage of its own before it, that is settled first, and what it has
        # received since follows. The bridge that has received a stream for longest waits for none.
        since = self._unsettled.get(stream)
        return self.receives(stream) or (since is not None and since[0] < to_us)

    def _is_stale(self, now_us: int) -> bool:
        """Whether the last poll is too old to prove anything; where it is older still, Redis has
        been away, and waiting for a poll would be waiting without end.
        """
        return self._polled_us is not None and (
            STALE_POLL_US <= now_us - self._polled_us < PATIENCE_US
        )

    def _note(self, mine: str, statuses: Iterable[PeerStatus], redis_us: int, now_us: int) -> None:
        """Note which peers have written something new."""
        self._peers = {
            status.instance: self._noted(status, redis_us, now_us)
            for status in statuses
            if status.instance != mine
        }

    def _noted(self, status: PeerStatus, redis_us: int, now_us: int) -> _Peer:
        known = self._peers.get(status.instance)
        if known is None:
            # A bridge that ended long ago leaves its last status behind.
            is_old = redis_us - status.at_us >= GONE_US
            return _Peer(status, now_us - GONE_US if is_old else now_us)
        before = known.status
        if (before.session, before.beat) != (status.session, status.beat):
            return _Peer(status, now_us, self._polled_us or 0)
        # While Redis was unavailable it could not write: its time begins anew. One that was gone
        # before does not come back by that.
        begins_anew = not self._is_unbroken and status.instance in self.live
        return _Peer(before, now_us if begins_anew else known.since_us, known.after_us)

    def _order(self, me: PeerStatus, now_us: int) -> None:
        """Work out which streams the peers receive, and how long this bridge waits in each."""
        self._received_before.append((now_us, me.received))
        while len(self._received_before) > 1 and now_us - self._received_before[1][0] >= LAG_US:
            self._received_before.popleft()
        lately, before = self._had(now_us - PUBLISH_DELAY_LAG_US), self._had(now_us - LAG_US)
        ahead: dict[str, int] = {}
        by_peers: set[str] = set()
        by_members: set[tuple[str, str]] = set()
        for name, status in self.live.items():
            for stream, received_us in status.received.items():
                if received_us >= before.get(stream, 0):
                    by_peers.add(stream)
                    by_members.add((status.member, stream))
                if name < me.instance and received_us >= lately.get(stream, 0):
                    ahead[stream] = ahead.get(stream, 0) + 1
        self._received_by_peers = frozenset(by_peers)
        self._received_by_members = frozenset(by_members)
        self._delays_us = {stream: count * PUBLISH_DELAY_US for stream, count in ahead.items()}
        self._put_last(me)

    def _put_last(self, me: PeerStatus) -> None:
        """Let this bridge come last in streams that it does not receive, or not yet without an
        unsettled outage, where peers have received them for longer.
        """
        self._unsettled = {}
        for name, status in self.live.items():
            for stream, since_us in status.unsettled.items():
                first = self._unsettled.get(stream, (since_us, name))
                self._unsettled[stream] = min(first, (since_us, name))
        self._counts_from = {
            stream: poll
            for stream, poll in self._counts_from.items()
            if self._polls < poll or not (stream in me.received or stream in me.unsettled)
        }
        delay_us = self._last_publish_delay_us()
        for stream in self._received_by_peers | self._unsettled.keys():
            if stream in self._received_by_peers:
                is_last = stream not in me.received or stream in self._counts_from
            else:
                is_last = self._is_behind(me, self._unsettled[stream], stream)
            if is_last:
                self._delays_us[stream] = delay_us

    def _is_behind(self, me: PeerStatus, peer_since: tuple[int, str], stream: str) -> bool:
        """Whether a peer with an unsettled outage has received the stream for longer."""
        if stream in self._counts_from:
            return True
        if stream in me.received:
            return False
        return stream not in me.unsettled or peer_since < (me.unsettled[stream], me.instance)

    def _last_publish_delay_us(self) -> int:
        """How long after receiving a message every peer has published what is older and is held by
        it: it may be last by name, and receive that much later than this bridge.
        """
        return len(self.live) * PUBLISH_DELAY_US + LAG_US

    def _had(self, until_us: int) -> Mapping[str, int]:
        """Up to when this bridge had received each stream then; nothing where that is not known."""
        return next(
            (had for at_us, had in reversed(self._received_before) if at_us <= until_us), {}
        )
