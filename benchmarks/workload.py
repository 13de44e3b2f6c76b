"""The messages that every row works on: some busy markets for some seconds, the same each time.

Made by the simulator's engine in virtual time and kept in a file, so that the process that sends
them has nothing to do but send.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator import frames, rest_bodies
from simulator.engine import Engine, Plan
from simulator.listing import listing

MARKETS = ("BTC_USDC", "ETH_USDC", "SOL_USDC", "BTC_USDC_PERP", "SOL_USDC_PERP")
TYPES = ("trade", "depth", "bookTicker", "ticker", "kline.1m", "markPrice")
VIRTUAL_RATE = 5_000.0  # of trades, depth and bookTicker; the share of the rest follows from it
DEPTH_LEVELS = 1_000
SEED = 1


@dataclass(frozen=True, slots=True)
class Workload:
    """`frames` as the exchange sends them; `books` (by symbol) and `markets` are the REST bodies
    from before the first.
    """

    frames: Sequence[bytes]
    books: Mapping[str, str]
    markets: str
    counts: Mapping[str, int]

    @property
    def streams(self) -> list[str]:
        """Every stream that has a frame."""
        return sorted(self.counts)

    def save(self, path: Path) -> None:
        """For another process."""
        facts = {"books": self.books, "markets": self.markets, "counts": self.counts}
        head = json.dumps(facts).encode()
        path.write_bytes(b"\n".join([head, *self.frames]))


def load(path: Path) -> Workload:
    """What `save` wrote."""
    head, *lines = path.read_bytes().split(b"\n")
    return Workload(lines, **json.loads(head))


def make(messages: int, markets: int = len(MARKETS), types: Sequence[str] = TYPES) -> Workload:
    """So many messages, beginning now: the bridge believes no time that is an hour away."""
    more = tuple(f"M{number}_USDC_PERP" for number in range(len(MARKETS), markets))
    symbols = (*MARKETS[:markets], *more)
    plan = Plan(tuple(map(listing, symbols)), SEED, time.time_ns() // 1000, VIRTUAL_RATE)
    engine = Engine(plan)
    books = {
        name: json.dumps(rest_bodies.depth(market, DEPTH_LEVELS, plan.start_us))
        for name, market in engine.markets.items()
    }
    listed = json.dumps([rest_bodies.market(each) for each in plan.listings])
    made: list[bytes] = []
    counts: Counter[str] = Counter()
    wanted = {f"{kind}.{market}" for kind in types for market in symbols}
    for step in engine.advance(plan.start_us + 3_600_000_000):
        for event in step:
            for stream in wanted.intersection(event.streams):
                made.append(frames.render(event, stream))
                counts[stream] += 1
                if len(made) == messages:
                    return Workload(made, books, listed, dict(counts))
    raise AssertionError("an hour was not enough")
