"""A script of random faults of all kinds of the simulator, equal for an equal seed.

Faults of single frames, and short ones of single streams, are made only in numbered streams
(trades, depth): in others a lost message cannot be detected.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

Command = dict[str, Any]
Maker = Callable[[random.Random, Sequence[str]], list[Command]]

FIRST_S = 0.5
MEAN_PAUSE_S = 1.2


def random_script(seed: int, for_s: float, symbols: Sequence[str]) -> str:
    """A script whose last fault begins within `for_s` seconds."""
    chance = random.Random(seed)
    lines: list[Command] = []
    at_s = FIRST_S
    while at_s < for_s:
        made = chance.choice(MAKERS)(chance, symbols)
        lines += [{"at_s": round(at_s + each.pop("after_s", 0.0), 3), **each} for each in made]
        at_s += chance.expovariate(1 / MEAN_PAUSE_S)
    lines.sort(key=lambda line: float(line["at_s"]))
    return "".join(json.dumps(line) + "\n" for line in lines)


# Frames -------------------------------------------------------------------------------------------


def _stream(chance: random.Random, symbols: Sequence[str]) -> str:
    return f"{chance.choice(('trade', 'depth'))}.{chance.choice(symbols)}"


def _lost(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    command: Command = {
        "fault": chance.choice(("drop", "hide")),
        "stream": _stream(chance, symbols),
        "count": chance.choice((1, 1, 2, 5, 40)),
        "for_s": 3.0,
    }
    return [command]


def _lost_by_chance(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    stream = chance.choice(("trade.*", "depth.*"))
    return [{"fault": "drop", "stream": stream, "share": 0.02, "for_s": 1.0}]


def _twice(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    stream = _stream(chance, symbols)
    return [{"fault": "duplicate", "stream": stream, "share": 0.3, "count": 20, "for_s": 2.0}]


def _late(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    delay_s = chance.choice((0.02, 0.3, 3.0))
    stream = _stream(chance, symbols)
    return [{"fault": "delay", "stream": stream, "delay_s": delay_s, "count": 5, "for_s": 2.0}]


def _out_of_order(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    by = chance.randrange(1, 6)
    stream = _stream(chance, symbols)
    return [{"fault": "reorder", "stream": stream, "by": by, "count": 5, "for_s": 2.0}]


def _corrupt(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    form = chance.choice(("garbage", "binary", "invalid_utf8", "truncated", "deep", "giant"))
    command = {"fault": "corrupt", "stream": _stream(chance, symbols), "count": 1, "for_s": 3.0}
    if form == "giant":
        command["size"] = chance.choice((2_000_000, 5_000_000))  # the second exceeds the limit
    return [{**command, "form": form}]


def _stalled_stream(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    return [
        {
            "fault": "stall",
            "stream": _stream(chance, symbols),
            "connection": "open",
            "then": chance.choice(("lost", "late")),
            "for_s": chance.uniform(0.2, 1.5),
        }
    ]


# Connections --------------------------------------------------------------------------------------


def _closed(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    return [_end(chance)]


def _end(chance: random.Random) -> Command:
    how = chance.choice(("close", "close", "eof", "reset"))
    return {"fault": "close", "how": how, "code": chance.choice((1000, 1001, 1012))}


def _half_open(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    if chance.random() < 0.5:
        return [{"fault": "close", "how": "silent"}]
    stall: Command = {"fault": "stall", "connection": "open", "then": "late"}
    return [{**stall, "for_s": chance.uniform(0.5, 4.0)}]  # a network that recovers


def _stuck(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    """Pings get a pong and no public message arrives, for so long that ticks are missing."""
    stall: Command = {"fault": "stall", "stream": "[!a]*", "connection": "open", "then": "lost"}
    return [{**stall, "for_s": chance.uniform(4.5, 8.0)}]


def _refused(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    refusal: Command = {"fault": "refuse", "for_s": chance.uniform(0.5, 2.5)}
    how = chance.choice(("status", "status", "reset", "hang"))
    if how == "status":
        refusal["status"] = chance.choice((429, 500, 502, 503))
    else:
        refusal["how"] = how
    return [refusal, {"fault": "close", "after_s": 0.01}]


def _without_pongs(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    return [{"fault": "no_pongs", "connection": "open", "for_s": chance.uniform(0.5, 4.0)}]


def _slow(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    return [{"fault": "slow_network", "connection": "open", "bytes_per_s": 100_000, "for_s": 1.0}]


def _error(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    return [{"fault": "error", "code": chance.choice((4001, 4005, 4007))}]


# Subscriptions that end without notice ------------------------------------------------------------


def _forgotten(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    kind = chance.choice(("trade", "depth", "bookTicker", "ticker"))
    return [{"fault": "forget", "stream": f"{kind}.{chance.choice(symbols)}"}]


def _ignored(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    kind = chance.choice(("trade", "depth", "bookTicker", "ticker"))
    stream = f"{kind}.{chance.choice(symbols)}"
    return [{"fault": "ignore", "stream": stream, "count": 1, "for_s": 3.0}, _end(chance)]


def _rejected(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    kind = chance.choice(("trade", "depth", "bookTicker", "ticker"))
    stream, code = chance.choice(
        ((f"{kind}.{chance.choice(symbols)}", 4006), ("account.*", 4003), ("account.*", 4003))
    )
    return [{"fault": "reject", "stream": stream, "code": code, "for_s": 3.0}, _end(chance)]


# The market and REST ------------------------------------------------------------------------------


def _skipped(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    return [{"fault": "skip", "stream": _stream(chance, symbols), "ids": chance.randrange(1, 6)}]


def _burst(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    return [{"fault": "burst", "rate": 4000, "for_s": 0.5}]


def _rest_fails(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    status = chance.choice((429, 500, 503))
    body = chance.choice(("json", "html", "empty"))
    command: Command = {"fault": "rest_status", "status": status, "body": body, "for_s": 1.5}
    if status == 429 and chance.random() < 0.5:
        command["retry_after_s"] = 1
    return [command, _end(chance)]


def _rest_breaks(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    form = chance.choice(("html", "truncated", "garbage", "empty", "deep", "reset"))
    return [{"fault": "rest_broken", "form": form, "count": 2, "for_s": 5.0}]


def _rest_lags(chance: random.Random, symbols: Sequence[str]) -> list[Command]:
    slow: Command = {"fault": "rest_slow", "delay_s": chance.uniform(0.2, 1.5), "for_s": 3.0}
    stale: Command = {"fault": "rest_stale", "age_s": 5.0, "for_s": 5.0}
    return [chance.choice((slow, stale)), *_lost(chance, symbols)]


MAKERS: Sequence[Maker] = (
    _lost,
    _lost,
    _lost_by_chance,
    _twice,
    _late,
    _out_of_order,
    _corrupt,
    _stalled_stream,
    _closed,
    _half_open,
    _stuck,
    _refused,
    _without_pongs,
    _slow,
    _error,
    _forgotten,
    _ignored,
    _rejected,
    _skipped,
    _burst,
    _rest_fails,
    _rest_breaks,
    _rest_lags,
)
