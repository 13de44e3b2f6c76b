"""Several bridges in one process and in made-up time: real lines, the real script, a real Redis.

What is real: `Intake` and all it holds, the other bridges' words, the append script on a server.
What is made up: the exchange, the clock, the sockets (queues that may stall), the journal (a list),
and whatever goes wrong. One seed makes one run.
"""

import json
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis

from bridge.contract.streams import parse_stream
from bridge.pipeline import far
from bridge.pipeline.intake import Intake
from bridge.pipeline.missing import Line
from bridge.pipeline.peers import Word
from bridge.pipeline.tail import Tail, identify
from bridge.pipeline.unnumbered import UnnumberedLine
from bridge.publish.append import SCRIPT, pack_append, read_answer
from tests.support import frames

TRADES, ORDERS, BOOKS = "trade.BTC_USDC_PERP", "account.orderUpdate", "bookTicker.SOL_USDC"
STREAMS = (TRADES, ORDERS, BOOKS)
BEGIN_US = 1_790_915_531_000_000
HOLD_US = 2_000_000
SECOND_US = 1_000_000
BATCH = 7

Call = Callable[[Intake], object]


def frame(template: str, stream: str, now_us: int, **data: object) -> str:
    message = json.loads(template)
    message["stream"] = stream
    message["data"] |= {"E": now_us, "T": now_us, **data}
    return json.dumps(message)


class RawRedis:
    """Sends packed commands and reads the replies; `lose` throws one away."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._reader = hiredis.Reader()

    def call(self, packed: bytes) -> Any:
        self._socket.sendall(packed)
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65_536))
        return reply

    def close(self) -> None:
        self._socket.close()


@dataclass
class Bridge:
    """One of them. `inbox` is what its socket has not been read of."""

    name: str
    intake: Intake
    journal: list[Call] = field(default_factory=list)
    inbox: deque[tuple[str, int, tuple[str, int]]] = field(default_factory=deque)
    connection: int = 0
    beat: int = 0
    listens: bool = False
    stalled: bool = False
    word: Word | None = None

    def take(self, call: Call) -> None:
        self.journal.append(call)
        call(self.intake)


class Model:
    """The run. `made` is all that the exchange sent, `heard` what a bridge has read."""

    def __init__(self, url: str, chance: Random, names: str = "ab") -> None:
        self.chance = chance
        self.now_us = BEGIN_US
        self.marks: dict[str, int] = {}
        self.trades = 1000
        self.made: dict[str, list[int]] = {stream: [] for stream in STREAMS}
        self.heard: set[tuple[str, int]] = set()
        self.raw = RawRedis(url)
        self.client: redis.Redis = redis.Redis.from_url(url, decode_responses=True)
        self.client.flushall()
        self.client.script_load(SCRIPT.decode())
        self.bridges = [Bridge(name, self._new_intake()) for name in names]
        for bridge in self.bridges:
            self.connect(bridge)
        for _ in range(2):
            self.beat_all()  # the first word of one is read with the second of another

    def close(self) -> None:
        self.raw.close()
        self.client.close()

    def _new_intake(self) -> Intake:
        intake = Intake(
            [parse_stream(name) for name in STREAMS],
            hold_us=HOLD_US,
            snapshot_every=0,
            ask=lambda _: None,
        )
        intake.company.expect()
        return intake

    # ---- the exchange ------------------------------------------------------------------------

    def send(self, loss: float = 0.0) -> None:
        """One message, to every bridge that listens but those that miss it (trades only)."""
        self.now_us += self.chance.choice((0, 200, 3_000, 40_000, 300_000))
        stream = self.chance.choice(STREAMS)
        moment_us = self.now_us - self.chance.choice((0, 0, 0, 3_000))  # engine time steps back
        number = len(self.made[stream]) + 1
        if stream == TRADES:
            self.trades += 1
            number = self.trades
            text = frame(frames.TRADE, stream, self.now_us, t=number, T=moment_us)
        elif stream == ORDERS:
            text = frame(frames.ORDER_ACCEPTED, stream, self.now_us, i=str(number), T=moment_us)
        else:
            text = frame(frames.BOOK_TICKER, stream, self.now_us, u=number)
        self.made[stream].append(number)
        for bridge in self.bridges:
            if not bridge.listens or (stream == TRADES and self.chance.random() < loss):
                continue
            bridge.inbox.append((text, bridge.connection, (stream, number)))

    def connect(self, bridge: Bridge) -> None:
        bridge.connection += 1
        number, now_us = bridge.connection, self.now_us
        bridge.listens = True
        bridge.take(lambda intake: intake.opened(number, STREAMS))
        bridge.take(lambda intake: intake.answered(number, now_us, now_us, 0))

    def cut(self, bridge: Bridge) -> None:
        """Its connection breaks; what was under way is lost."""
        number, now_us = bridge.connection, self.now_us
        bridge.listens = False
        bridge.inbox.clear()
        bridge.take(lambda intake: intake.lost(number, "connection lost", now_us, 0))

    def restart(self, bridge: Bridge, back: int) -> None:
        """Killed, and started again from a checkpoint so many records ago."""
        bridge.intake = self._new_intake()
        bridge.inbox.clear()
        bridge.listens = False
        for line in bridge.intake.every_line():
            line.hear_again()
        now_us = self.now_us
        for call in bridge.journal[:-back] if back else bridge.journal:
            call(bridge.intake)
        for line in bridge.intake.every_line():
            line.rewind(0, 0)  # settled before the checkpoint
        for call in bridge.journal[-back:] if back else []:
            call(bridge.intake)
        bridge.take(lambda intake: intake.started(now_us, 0))
        for line in bridge.intake.every_line():
            line.caught_up()
        marks = dict(self.marks)
        bridge.take(lambda intake: intake.resume(marks, now_us, 0))
        self.connect(bridge)

    # ---- the bridges -------------------------------------------------------------------------

    def beat_all(self) -> None:
        """Those that are not stalled say how far they are, and read what the others said."""
        for bridge in self.bridges:
            if bridge.stalled:
                continue
            bridge.beat += 1
            intake = bridge.intake
            bridge.word = Word(
                instance=bridge.name,
                session=bridge.name,
                beat=bridge.beat,
                at_us=self.now_us,
                oldest_us=far.oldest_us(intake),
                held=far.held(intake),
                heard=far.heard_us(intake),
            )
            for name, us in far.settled_until_us(intake).items():
                self.marks[name] = max(us, self.marks.get(name, 0))
            words = [other.word for other in self.bridges if other.word]
            intake.company.look(
                bridge.word, words, dict(self.marks), redis_us=self.now_us, now_us=self.now_us
            )

    def work(self, lost_replies: float = 0.0) -> None:
        """Every bridge that is not stalled reads its socket and publishes what it may."""
        order = self.bridges[:]
        self.chance.shuffle(order)
        for bridge in order:
            if bridge.stalled:
                continue
            for text, number, message in bridge.inbox:
                now_us = self.now_us
                self.heard.add(message)
                bridge.take(
                    lambda intake, text=text, number=number: intake.hear(text, now_us, number, 0)  # type: ignore[misc]  # noqa: B023
                )
            bridge.inbox.clear()
            for line in bridge.intake.every_line():
                self._publish(bridge, line, lost_replies)

    def _publish(self, bridge: Bridge, line: Line, lost_replies: float) -> None:
        for _ in range(2000):
            if isinstance(line, UnnumberedLine) and line.tail_wanted(self.now_us):
                self._read_tail(line)
            items = line.take(self.now_us, BATCH)
            if not items:
                return
            reply = self.raw.call(pack_append(line.stream.name.encode(), b"", b"", items))
            if self.chance.random() < lost_replies:
                line.unanswered()
                continue
            answer = read_answer(reply)
            assert not isinstance(answer, hiredis.ReplyError), answer
            line.settle(answer, self.now_us)
            bridge.intake.redis_answered(line, self.now_us)
        raise AssertionError(f"{bridge.name}: {line.stream.name} does not come to rest")

    def _read_tail(self, line: UnnumberedLine) -> None:
        wanted = line.tail_wanted(self.now_us)
        assert wanted is not None
        entries: Any = self.client.xrevrange(
            line.stream.name, "+", str(wanted.from_ms), count=wanted.at_most
        )
        known = [told for _, fields in entries if (told := identify(fields)) is not None]
        last = "0-0"
        if self.client.exists(line.stream.name):
            info: Any = self.client.xinfo_stream(line.stream.name)
            last = info["last-generated-id"]
        line.read_tail(Tail(last, known))

    def come_to_rest(self) -> None:
        """Everything goes well for forty seconds; the exchange goes on ticking."""
        for bridge in self.bridges:
            bridge.stalled = False
            if not bridge.listens:
                self.connect(bridge)
        for _ in range(80):
            self.now_us += SECOND_US // 2
            for bridge in self.bridges:
                number, now_us = bridge.connection, self.now_us
                bridge.take(lambda intake: intake.answered(number, now_us, now_us, 0))  # noqa: B023
            self.work()
            self.beat_all()

    # ---- what must hold ----------------------------------------------------------------------

    def stored(self, stream: str) -> list[tuple[str, dict[str, str]]]:
        entries: Any = self.client.xrange(stream)
        return list(entries)

    def faults(self) -> Iterator[str]:
        """The laws that hold whatever goes wrong."""
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
        deaf: list[tuple[int, int]] = []
        for _, fields in self.stored(ORDERS):
            if fields["type"] == "gap":
                deaf.append((int(fields["from_us"] or 0), int(fields["to_us"])))
            else:
                there.append(int(fields["order_id"]))
        if len(there) != len(set(there)):
            yield f"{ORDERS}: twice: {sorted(n for n in set(there) if there.count(n) > 1)}"
        lost = self._heard_of(ORDERS) - set(there)
        if lost:
            yield f"{ORDERS}: heard, and neither there: {sorted(lost)} (deaf {deaf})"

    def _heard_of(self, stream: str) -> set[int]:
        return {number for name, number in self.heard if name == stream}

    def gaps(self, stream: str) -> Sequence[dict[str, str]]:
        return [f for _, f in self.stored(stream) if f["type"] == "gap" and f["cause"] != "start"]

    def numbers(self, stream: str, name: str) -> set[int]:
        return {int(f[name]) for _, f in self.stored(stream) if f["type"] != "gap"}
