"""Corrupted journals: recorded ones, with lines lost, duplicated, moved and changed.

    python -m tests.oracle mutate --data /tmp/oracle --into /tmp/oracle-mutated --seeds 1-3

The same seed makes the same journal. Numbers and times skip, step back, or are absurd; unknown
fields are added; records of connections are missing.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SHARE = 0.01  # of the frames, for each change
OTHER_SHARE = 0.03  # of all other records
SEGMENT = "00000000000000000000.journal"

LAST = ("dropped", "garbage", "doubled")  # changes after which no other change is possible

Chance = random.Random
Data = dict[str, Any]


def mutate(journal: Path, seed: str) -> None:
    """Change a journal in its folder; its segments become one."""
    chance = random.Random(seed)
    segments = sorted(journal.glob("*.journal"))
    lines = b"".join(path.read_bytes() for path in segments).splitlines(keepends=True)
    for path in (*segments, journal / "checkpoint.json"):
        path.unlink(missing_ok=True)
    (journal / SEGMENT).write_bytes(b"".join(_mutated(lines, chance)))


def _mutated(lines: Sequence[bytes], chance: Chance) -> list[bytes]:
    changed: list[bytes] = []
    for line in lines:
        [kind] = line.split(b" ", 2)[1:2] or [b""]
        share = SHARE if kind == b"F" else OTHER_SHARE
        for name, change in (OF_FRAMES if kind == b"F" else OF_OTHERS).items():
            if kind == b"O" and name in LAST:
                continue  # too many frames would belong to no subscription
            if chance.random() < share:
                line = change(line, chance)
                if name in LAST:
                    break
        changed.append(line)
    for _ in range(int(len(changed) * SHARE)):
        place = chance.randrange(len(changed))
        moved = changed.pop(place)
        changed.insert(max(0, place + chance.randrange(-8, 9)), moved)
    return changed


def _dropped(line: bytes, chance: Chance) -> bytes:
    return b""


def _doubled(line: bytes, chance: Chance) -> bytes:
    return line * 2


def _garbage(line: bytes, chance: Chance) -> bytes:
    return line[: chance.randrange(len(line))] + b"\n"


def _elsewhere(line: bytes, chance: Chance) -> bytes:
    """The line moved to another connection, which may never have been opened."""
    at, kind, _, body = line.split(b" ", 3)
    return b" ".join((at, kind, str(chance.randrange(4)).encode(), body))


def _at_another_time(line: bytes, chance: Chance) -> bytes:
    """The line at another time, as if the bridge's clock had been set."""
    at, rest = line.split(b" ", 1)
    return b"%d %b" % (int(at) + chance.choice((-5_000_000, 700_000, 3_000_000, 12_000_000)), rest)


def _in_data(change: Callable[[Data, Chance], None]) -> Callable[[bytes, Chance], bytes]:
    def changed(line: bytes, chance: Chance) -> bytes:
        try:
            *head, body = line.split(b" ", 3)
            frame = json.loads(body)
            change(frame["data"], chance)
        except (ValueError, KeyError, TypeError):
            return line
        return b" ".join((*head, json.dumps(frame, separators=(",", ":")).encode() + b"\n"))

    return changed


def _number(data: Data, chance: Chance) -> None:
    by = chance.choice((-500, -7, -1, 1, 3, 900))
    for name in {"trade": "t", "depth": "uU", "bookTicker": "u"}.get(data.get("e", ""), ""):
        data[name] = int(data[name]) + by


def _absurd_number(data: Data, chance: Chance) -> None:
    names = [name for name in ("t", "u", "U") if name in data]
    if names:
        data[chance.choice(names)] = chance.choice((0, -1, 10**15, 2**63, 2**70, "12", None, 1.5))


def _absurd_time(data: Data, chance: Chance) -> None:
    names = [name for name in ("E", "T") if name in data]
    if names:
        times = (0, -1, 2**53, 2**63, 10**18, "1795919380754454", None)
        data[chance.choice(names)] = chance.choice(times)


def _time(data: Data, chance: Chance) -> None:
    by_us = chance.choice((-4_000_000_000, -2_000_000, -900, 900, 2_000_000, 4_000_000_000))
    for name in ("E", "T"):
        if isinstance(data.get(name), int):
            data[name] += by_us


def _same_time(data: Data, chance: Chance) -> None:
    """Round the engine time down to a second: many messages then have the same time."""
    if isinstance(data.get("T"), int):
        data["T"] -= data["T"] % 1_000_000


def _unknown_field(data: Data, chance: Chance) -> None:
    data[chance.choice(("zz", "k9"))] = chance.choice((1, "x", None, [1, {"a": 2}], 1e30, "\ud800"))


def _lacks_field(data: Data, chance: Chance) -> None:
    del data[chance.choice(sorted(data))]


def _other_symbol(data: Data, chance: Chance) -> None:
    if "s" in data:
        data["s"] = chance.choice(("SOL_USDC", "BTC_USDC", "", None, "sol"))


Change = Callable[[bytes, Chance], bytes]
OF_FRAMES: Mapping[str, Change] = {
    "dropped": _dropped,
    "number": _in_data(_number),
    "absurd number": _in_data(_absurd_number),
    "absurd time": _in_data(_absurd_time),
    "time": _in_data(_time),
    "same time": _in_data(_same_time),
    "unknown field": _in_data(_unknown_field),
    "lacks field": _in_data(_lacks_field),
    "at another time": _at_another_time,
    "elsewhere": _elsewhere,
    "other symbol": _in_data(_other_symbol),
    "doubled": _doubled,
}
OF_OTHERS: Mapping[str, Change] = {
    "dropped": _dropped,
    "garbage": _garbage,
    "elsewhere": _elsewhere,
    "doubled": _doubled,
}
