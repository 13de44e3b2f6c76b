"""The peers, other bridges on the same streams: which one publishes first, and which of them a gap
waits for (pure).

Each bridge writes a `PeerStatus` each second and reads those of its peers. Publishing is safe by
the append script alone; this module only decides which bridge waits, and how long.

Sequenced streams are published by all bridges, and the first copy wins. Content streams are
published in an order, since detecting a duplicate costs more there: the first bridge by name that
receives a stream publishes at once, the next one what is missing `PUBLISH_DELAY_US` later, and so
on.

A bridge that does not receive a stream, or has an unsettled outage in it, comes last, whatever its
name: it waits for all that have received the stream for longer (see `Peers.uncovered`). All of this
is decided for each stream alone: bridges may receive different ones.

A bridge without peers never waits. Times are µs: `now_us`, `at_us` and `waited_since_us` are by
this bridge's steady clock, by which all waits are measured; times of messages by the exchange's.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from bridge.runtime.keyspace import KeySpace

PUBLISH_DELAY_US = 2_000_000  # how long a bridge waits for the previous one to publish a message
DEAD_AFTER_US = 5_000_000  # no new status for so long: the bridge is not running
# How far a peer may lag behind this bridge and still count as receiving a stream: for its place in
# the order, and for waiting for it with an outage (a bridge on a loaded machine lags by seconds).
PUBLISH_DELAY_LAG_US, LAG_US = 3_000_000, 15_000_000
STALE_POLL_US = 3_000_000  # a poll so old proves nothing: this process may have been frozen
PEER_WAIT_US = 30_000_000  # the longest wait for a peer
BEHIND_US = 1  # `PeerStatus.oldest_us` of a bridge whose progress is unknown


class PeerStatus(BaseModel):
    """The status of one bridge for its peers. Times are µs by the exchange's clock, but `at_us` and
    `started_us` by that of Redis.

    `received`: stream without an unsettled outage → up to when all of it has been received.
    `unsettled`: stream with an unsettled outage → since when it is received after the last one;
    these messages wait until the outage is settled. `held`: sequenced stream → the number that its
    waiting message needs before it. `oldest_us`: time of the oldest sequenced message that is not
    in Redis; 0: all are.
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
        # It may be behind in any stream, even one that its status does not list yet.
        if self.oldest_us and self.oldest_us <= moment_us:
            return True
        received_us = self.received.get(stream)
        return received_us is not None and received_us < moment_us


class OutageVerdict(StrEnum):
    """The decision on an outage of this bridge."""

    COVERED = "covered"  # a peer has published that time: no gap is written
    WAIT = "wait"  # a peer may have received it
    REAL = "real"  # no peer has received it: a gap is written


@dataclass(frozen=True, slots=True)
class _Peer:
    """A peer. `since_us`: when this status was first read (not counting time while Redis was
    unavailable); `after_us`: the poll before that, after which the status was written.
    """

    status: PeerStatus
    since_us: int
    after_us: int = 0


class Peers:
    """The peers as one bridge knows them.

    `is_known` is False from `expect` to the first `update`: until then no stream with an order of
    bridges is published and no gap is written, except while `ignores_peers` (see
    `first_poll_failed`). `rank`: how many live peers are before this bridge by name. `watermarks`:
    stream → up to when everything is in Redis.
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
        self._is_unbroken = False  # whether the last poll succeeded
        self._polls = 0  # failed ones included
        self._first_failed_us: int | None = None
        self.ignores_peers = False
        self._delays_us: dict[str, int] = {}
        self._received_by_peers: frozenset[str] = frozenset()
        self._received_by_members: frozenset[tuple[str, str]] = frozenset()  # member, stream
        # stream with an unsettled outage of a peer → since when one receives it, and its name
        self._unsettled: dict[str, tuple[int, str]] = {}
        self._received_before: deque[tuple[int, Mapping[str, int]]] = deque()
        # Stream that is not received, or was not lately → the poll from which on our own status
        # counts for it.
        self._counts_from: dict[str, int] = {}

    # ---- events ------------------------------------------------------------------------------

    def expect(self) -> None:
        """Wait for the first poll, since there may be peers."""
        self.is_known = False

    def first_poll_failed(self, now_us: int) -> bool:
        """Note that the first poll failed. The statuses are on the first shard; streams of other
        shards wait for it no longer than for a peer. After that this bridge ignores peers: it
        publishes last in those streams, and marks what is still missing after as long again.
        Returns whether it does.
        """
        if self._first_failed_us is None:
            self._first_failed_us = now_us
        is_over = now_us - self._first_failed_us >= PEER_WAIT_US
        self.ignores_peers = self._space.shards > 1 and is_over
        return self.ignores_peers

    def resumed(self, now_us: int, shard: int = 0) -> None:
        """Note that publishing to a shard resumes after a pause: peers could not publish either."""
        self._resumed_us[shard] = now_us

    def poll_failed(self) -> None:
        """Note a failed poll: that no status is new proves nothing then."""
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
        """Take the last status of all bridges, read at `redis_us` by the clock of Redis; `me`: the
        status that this one wrote.
        """
        self._polls += 1
        self._note(me.instance, statuses, redis_us, now_us)
        self.watermarks = watermarks
        self.live = {
            name: peer.status
            for name, peer in self._peers.items()
            if not peer.status.stopped and now_us - peer.since_us < DEAD_AFTER_US
        }
        self.rank = sum(name < me.instance for name in self.live)
        self._order(me, now_us)
        self._polled_us = now_us
        self.is_known = self._is_unbroken = True
        self.ignores_peers = False

    def uncovered(self, streams: Iterable[str]) -> None:
        """Note that this bridge does not receive these streams any more. Where peers do, it comes
        last until it receives them again and the outage between is settled.
        """
        # The first messages of a new subscription are newer than the missed ones. Peers may hold
        # those for their publish delay, while this bridge's outage is not in its queue yet. If it
        # published at once, states held by peers would be late, and dropped without a gap.
        #
        # A status made before this may be in flight to Redis, and lists the streams as received.
        # The first one that counts is the next.
        for name in streams:
            self._counts_from[name] = self._polls + 2
            if name in self._received_by_peers or name in self._unsettled:
                self._delays_us[name] = self._last_publish_delay_us()

    # ---- the order of bridges ----------------------------------------------------------------

    def publish_delay_us(self, stream: str) -> int:
        """How long after receipt this bridge publishes a message, in a stream with an order of
        bridges.
        """
        return self._delays_us.get(stream, LAG_US + PUBLISH_DELAY_US if self.ignores_peers else 0)

    def may_publish(self, stream: str) -> bool:
        """Whether this bridge may publish a stream with an order of bridges, and write gaps."""
        return self.is_known or (self.ignores_peers and self._space.shard_of(stream) > 0)

    def receives(self, stream: str) -> bool:
        """Whether a peer receives this stream now, without an unsettled outage."""
        return stream in self._received_by_peers

    def member_receives(self, member: str, stream: str) -> bool:
        """Whether this fleet member receives this stream now, without an unsettled outage."""
        return (member, stream) in self._received_by_members

    def is_received(self, stream: str) -> bool:
        """Whether a peer receives this stream now, with an unsettled outage or without."""
        return stream in self._received_by_peers or stream in self._unsettled

    def hold_from_us(self, stream: str, at_us: int) -> int:
        """The beginning of the hold of a message received at `at_us`."""
        return max(at_us, self._resumed_at_us(stream)) if self.live else at_us

    # ---- gaps and outages --------------------------------------------------------------------

    def may_mark_gap(
        self, stream: str, after: int, moment_us: int, *, waited_since_us: int, now_us: int
    ) -> bool:
        """Whether no peer can bring what is missing before a message of `moment_us`, which needs
        the position `after` before it.
        """
        if not self.may_publish(stream) or self._is_stale(now_us):
            return False
        if now_us - max(waited_since_us, self._resumed_at_us(stream)) >= PEER_WAIT_US:
            return True
        if not self.is_known:
            return False  # peers are unknown
        return not any(peer.may_fill(stream, after, moment_us) for peer in self.live.values())

    def judge_outage(
        self, stream: str, to_us: int, *, waited_since_us: int, now_us: int
    ) -> OutageVerdict:
        """The decision on an outage of this bridge that ended at `to_us` (exchange's time) and is
        known since `waited_since_us`.
        """
        if self.watermarks.get(stream, 0) >= to_us:
            return OutageVerdict.COVERED
        if self._is_stale(now_us):
            return OutageVerdict.WAIT
        since_us = max(waited_since_us, self._resumed_at_us(stream))
        waited_us = now_us - since_us
        if waited_us >= PEER_WAIT_US or not (self.live or self.ignores_peers):
            return OutageVerdict.REAL
        if self.ignores_peers:
            return OutageVerdict.WAIT
        # A status from before the outage was known does not show whether the peer had it, too.
        have_reported = all(self._peers[name].after_us >= since_us for name in self.live)
        # Of several bridges with the same outage the first by name writes it; its watermark behind
        # the outage then shows the rest that it is settled.
        is_turn = waited_us >= (self.rank + 1) * PUBLISH_DELAY_US
        if self._may_cover(stream, to_us) or not have_reported or not is_turn:
            return OutageVerdict.WAIT
        return OutageVerdict.REAL

    # ---- inside ------------------------------------------------------------------------------

    def _resumed_at_us(self, stream: str) -> int:
        """When publishing to the stream's shard last resumed."""
        return self._resumed_us.get(self._space.shard_of(stream), 0)

    def _may_cover(self, stream: str, to_us: int) -> bool:
        """Whether a peer may have received what this bridge missed before `to_us`."""
        # A peer with an earlier outage of its own settles that first, and then publishes what it
        # has received since. The bridge that has received a stream for longest waits for none.
        since = self._unsettled.get(stream)
        return self.receives(stream) or (since is not None and since[0] < to_us)

    def _is_stale(self, now_us: int) -> bool:
        """Whether the last poll is too old to prove anything. Not so if it is older than
        `PEER_WAIT_US`: Redis was unavailable, and a wait for a poll might have no end.
        """
        return self._polled_us is not None and (
            STALE_POLL_US <= now_us - self._polled_us < PEER_WAIT_US
        )

    def _note(self, mine: str, statuses: Iterable[PeerStatus], redis_us: int, now_us: int) -> None:
        """Update the peers by their new statuses."""
        self._peers = {
            status.instance: self._noted(status, redis_us, now_us)
            for status in statuses
            if status.instance != mine
        }

    def _noted(self, status: PeerStatus, redis_us: int, now_us: int) -> _Peer:
        known = self._peers.get(status.instance)
        if known is None:
            # The last status of a bridge that ended long ago is still stored.
            is_old = redis_us - status.at_us >= DEAD_AFTER_US
            return _Peer(status, now_us - DEAD_AFTER_US if is_old else now_us)
        before = known.status
        if (before.session, before.beat) != (status.session, status.beat):
            return _Peer(status, now_us, self._polled_us or 0)
        # While Redis was unavailable the peer could not write: its time begins anew, unless it was
        # dead before.
        begins_anew = not self._is_unbroken and status.instance in self.live
        return _Peer(before, now_us if begins_anew else known.since_us, known.after_us)

    def _order(self, me: PeerStatus, now_us: int) -> None:
        """Update which streams the peers receive, and this bridge's publish delay in each."""
        self._received_before.append((now_us, me.received))
        while len(self._received_before) > 1 and now_us - self._received_before[1][0] >= LAG_US:
            self._received_before.popleft()
        lately = self._received_at(now_us - PUBLISH_DELAY_LAG_US)
        before = self._received_at(now_us - LAG_US)
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
        """Put this bridge last in streams that it does not receive, or only with an unsettled
        outage, and that peers have received for longer.
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
        """The delay after which every peer has published its older messages: a peer may be last by
        name, and lag behind this bridge by `LAG_US`.
        """
        return len(self.live) * PUBLISH_DELAY_US + LAG_US

    def _received_at(self, moment_us: int) -> Mapping[str, int]:
        """This bridge's `received` at that moment; empty if unknown."""
        before = reversed(self._received_before)
        return next((received for at_us, received in before if at_us <= moment_us), {})
