"""Several bridges in one process and in simulated time, over one real Redis.

Real: each bridge (`SteppedBridge`: ingest, journal, core, outbox) and the data that bridges
exchange. Simulated: the exchange, the clock, the sockets (queues of unread messages), and all
faults. One seed makes one run.
"""

import json
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import redis

from bridge.core.books import SnapshotPlan
from bridge.core.peers import PeerStatus
from bridge.core.plan import CorePlan
from bridge.core.progress import open_outages, progress
from bridge.core.records import Answered, Watermarks
from tests.support import frames
from tests.support.stepped_bridge import NOW_US, RedisSocket, SteppedBridge, SteppedClock

TRADES, ORDERS, BOOKS = "trade.BTC_USDC_PERP", "account.orderUpdate", "bookTicker.SOL_USDC"
STREAMS = (TRADES, ORDERS, BOOKS)
HOLD_US = 2_000_000
SECOND_US = 1_000_000
BATCH = 7
PLAN = CorePlan(hold_us=HOLD_US, snapshots=SnapshotPlan(0), recover_us=HOLD_US)


def frame(template: str, stream: str, now_us: int, **data: object) -> str:
    message = json.loads(template)
    message["stream"] = stream
    message["data"] |= {"E": now_us, "T": now_us, **data}
    return json.dumps(message)


@dataclass
class Member:
    """One bridge. `inbox`: messages that it has not read from its socket yet."""

    name: str
    bridge: SteppedBridge
    inbox: deque[tuple[str, int, tuple[str, int]]] = field(default_factory=deque)
    connection: int = 0
    beat: int = 0
    session: int = 0
    receives: bool = False
    stalled: bool = False
    status: PeerStatus | None = None


class Model:
    """A run. `made`: all messages of the exchange by stream; `received`: those that a bridge
    has read.
    """

    def __init__(self, url: str, chance: Random, names: str = "ab") -> None:
        self.chance = chance
        self.clock = SteppedClock(NOW_US)
        self.watermarks: dict[str, int] = {}
        self.trades = 1000
        self.made: dict[str, list[int]] = {stream: [] for stream in STREAMS}
        self.received: set[tuple[str, int]] = set()
        self.client: redis.Redis = redis.Redis.from_url(url, decode_responses=True)
        self.client.flushall()
        self._folder = Path(tempfile.mkdtemp())
        self.members = [Member(name, self._new_bridge(name)) for name in names]
        for member in self.members:
            self.connect(member)
        for _ in range(2):
            self.beat_all()  # a bridge reads its peers' first status in the second round

    def close(self) -> None:
        for member in self.members:
            member.bridge.end()
        self.client.close()
        shutil.rmtree(self._folder)

    def _new_bridge(self, name: str) -> SteppedBridge:
        bridge = SteppedBridge(
            self._folder / name,
            RedisSocket(self.client),
            STREAMS,
            clock=self.clock,
            plan=PLAN,
            has_peers=True,
            batch_entries=BATCH,
        )
        bridge.ingest.step(1)
        return bridge

    @property
    def now_us(self) -> int:
        return self.clock.us

    # ---- the exchange --------------------------------------------------------------------------

    def send(self, loss: float = 0.0) -> None:
        """Send one message to every receiving bridge; trades are lost with probability `loss`."""
        self.clock.us += self.chance.choice((0, 200, 3_000, 40_000, 300_000))
        now_us = self.now_us
        stream = self.chance.choice(STREAMS)
        moment_us = now_us - self.chance.choice((0, 0, 0, 3_000))  # engine time steps back
        number = len(self.made[stream]) + 1
        if stream == TRADES:
            self.trades += 1
            number = self.trades
            text = frame(frames.TRADE, stream, now_us, t=number, T=moment_us)
        elif stream == ORDERS:
            text = frame(frames.ORDER_ACCEPTED, stream, now_us, i=str(number), T=moment_us)
        else:
            text = frame(frames.BOOK_TICKER, stream, now_us, u=number)
        self.made[stream].append(number)
        for member in self.members:
            is_lost = stream == TRADES and self.chance.random() < loss
            if member.receives and not is_lost:
                member.inbox.append((text, member.connection, (stream, number)))

    def connect(self, member: Member) -> None:
        member.receives = True
        member.connection = member.bridge.connect()

    def cut(self, member: Member) -> None:
        """Break a member's connection; unread messages are lost."""
        member.receives = False
        member.inbox.clear()
        member.bridge.lose(member.connection)

    def restart(self, member: Member) -> None:
        """Kill and restart a member, from its last checkpoint and its journal."""
        member.inbox.clear()
        member.bridge.kill()
        member.bridge.start()
        member.session += 1
        member.bridge.ingest.take(Watermarks(self.now_us, dict(self.watermarks)))
        self.connect(member)

    # ---- the bridges ---------------------------------------------------------------------------

    def beat_all(self) -> None:
        """All bridges that are not stalled publish their status and read their peers' statuses."""
        for member in self.members:
            if member.stalled:
                continue
            member.beat += 1
            bridge = member.bridge
            is_behind = not bridge.ingest.is_live
            current = progress([bridge.core], is_behind=is_behind)
            member.status = PeerStatus(
                instance=member.name,
                session=str(member.session),
                beat=member.beat,
                at_us=self.now_us,
                oldest_us=current.oldest_us,
                held=current.held,
                received=current.received,
                unsettled=current.unsettled,
            )
            for name, us in current.settled.items():
                self.watermarks[name] = max(us, self.watermarks.get(name, 0))
            bridge.peers.update(
                member.status,
                [other.status for other in self.members if other.status],
                dict(self.watermarks),
                redis_us=self.now_us,
                now_us=self.now_us,
            )

    def work(self, lost_replies: float = 0.0) -> None:
        """Every bridge that is not stalled reads its socket and publishes."""
        order = self.members[:]
        self.chance.shuffle(order)
        for member in order:
            if member.stalled:
                continue
            for text, connection, message in member.inbox:
                self.received.add(message)
                member.bridge.receive(text, connection)
            member.inbox.clear()
            if self.chance.random() < 0.2:
                member.bridge.save_checkpoint()
            self._publish(member.bridge, lost_replies)

    def _publish(self, bridge: SteppedBridge, lost_replies: float) -> None:
        for _ in range(2000):
            is_reading = bridge.ingest.step(50)
            bridge.pump(lambda: self.chance.random() < lost_replies)
            if bridge.outbox.is_connected and not is_reading:
                return
        raise AssertionError("a bridge never becomes idle")

    def come_to_rest(self) -> None:
        """Run for 40 s of simulated time without faults; the exchange continues to reply."""
        for member in self.members:
            member.stalled = False
            if not member.receives:
                self.connect(member)
        for _ in range(80):
            self.clock.us += SECOND_US // 2
            for member in self.members:
                now_us = self.now_us
                member.bridge.ingest.take(Answered(now_us, member.connection, now_us, (), now_us))
            self.work()
            self.beat_all()

    def is_well(self, member: Member) -> bool:
        """Whether a member receives, has no open outage, and all its peers see it as live."""
        is_known = all(
            member.name in other.bridge.peers.live for other in self.members if other is not member
        )
        is_receiving = member.receives and not member.stalled
        core = member.bridge.core
        return is_known and is_receiving and not open_outages([core], core.queues)

    # ---- the invariants -------------------------------------------------------------------------

    def stored(self, stream: str) -> list[tuple[str, dict[str, str]]]:
        entries: Any = self.client.xrange(stream)
        return list(entries)

    def faults(self) -> Iterator[str]:
        """Violations of the invariants that hold under all faults."""
        for stream in STREAMS:
            ids = [tuple(map(int, each.split("-"))) for each, _ in self.stored(stream)]
            if ids != sorted(set(ids)):
                yield f"{stream}: IDs do not rise"
        yield from self._trade_faults()
        yield from self._event_faults()
        order = [int(f["update_id"]) for _, f in self.stored(BOOKS) if f["type"] == "bookTicker"]
        if order != sorted(set(order)):
            yield f"{BOOKS}: states step back or are there twice: {order}"

    def _trade_faults(self) -> Iterator[str]:
        position = None
        missing: set[int] = set()
        there: list[int] = []
        for entry_id, fields in self.stored(TRADES):
            if fields["type"] == "gap":
                if fields["from"] and int(fields["from"]) != (position or 0) + 1:
                    yield f"{TRADES}: gap {entry_id} from {fields['from']} behind {position}"
                if fields["from"]:
                    missing |= set(range(int(fields["from"]), int(fields["to"]) + 1))
                position = int(fields["to"]) if fields["to"] else position
                continue
            number = int(fields["trade_id"])
            if position is not None and number != position + 1:
                yield f"{TRADES}: {number} behind {position}"
            position = number
            there.append(number)
        if missing & set(there):
            yield f"{TRADES}: a gap names what is there: {missing & set(there)}"
        if len(there) != len(set(there)):
            yield f"{TRADES}: twice"

    def _event_faults(self) -> Iterator[str]:
        there: list[int] = []
        outages: list[tuple[int, int]] = []
        for _, fields in self.stored(ORDERS):
            if fields["type"] == "gap":
                outages.append((int(fields["from_us"] or 0), int(fields["to_us"])))
            else:
                there.append(int(fields["order_id"]))
        if len(there) != len(set(there)):
            yield f"{ORDERS}: twice: {sorted(n for n in set(there) if there.count(n) > 1)}"
        lost = self._received_of(ORDERS) - set(there)
        if lost:
            yield f"{ORDERS}: received, and not there: {sorted(lost)} (outages {outages})"

    def _received_of(self, stream: str) -> set[int]:
        return {number for name, number in self.received if name == stream}

    def gaps(self, stream: str) -> Sequence[dict[str, str]]:
        return [f for _, f in self.stored(stream) if f["type"] == "gap" and f["cause"] != "start"]

    def numbers(self, stream: str, name: str) -> set[int]:
        return {int(f[name]) for _, f in self.stored(stream) if f["type"] != "gap"}
