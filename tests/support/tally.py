"""The fate of one market's trades and book changes in a chaos run, with the bridge and with a naive
loop: rows for the table in docs/guarantees.md.

    python -m tests.support.tally FOLDER      the table of the rows that runs have left in a folder
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import redis

from tests.support import truth
from tests.support.naive_loop import PREFIX

MARKET = "SOL_USDC"  # the loop receives one market; it could not keep up with all
STREAMS = (f"trade.{MARKET}", f"depth.{MARKET}")
NUMBER = {"trade": "t", "depth": "u"}
OURS = {"trade": "trade_id", "depth": "last_update_id"}


@dataclass(frozen=True, slots=True)
class Tally:
    """Of `made` messages the numbers of missing, duplicated and misplaced ones. `marked`: missing
    messages inside a gap.
    """

    made: int = 0
    missing: int = 0
    marked: int = 0
    duplicated: int = 0
    disordered: int = 0

    @property
    def lost(self) -> int:
        """The number of missing messages outside all gaps."""
        return self.missing - self.marked

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            *(mine + theirs for mine, theirs in zip(_numbers(self), _numbers(other), strict=True))
        )


def _numbers(tally: Tally) -> Sequence[int]:
    return list(asdict(tally).values())


def of_numbers(
    made: Sequence[int], stored: Sequence[int], gaps: Iterable[tuple[int, int]] = ()
) -> Tally:
    """Compare the sent messages with the stored ones, in order."""
    times = Counter(stored)
    missing = [number for number in made if number not in times]
    spans = list(gaps)
    return Tally(
        made=len(made),
        missing=len(missing),
        marked=sum(any(first <= number <= last for first, last in spans) for number in missing),
        duplicated=sum(count - 1 for count in times.values()),
        disordered=sum(later < earlier for earlier, later in pairwise(stored)),
    )


Made = Mapping[str, Sequence[Mapping[str, Any]]]


def made_since(ledger: Path, begun_us: int) -> Made:
    """The data of the frames that the exchange made from `begun_us` on, by stream."""
    made: dict[str, list[Mapping[str, Any]]] = {}
    for line in truth.read_ledger(ledger):
        if line["frame"]["data"].get("E", 0) >= begun_us:
            made.setdefault(line["frame"]["stream"], []).append(line["frame"]["data"])
    return made


def take(client: redis.Redis, made: Made) -> tuple[Tally, Tally]:
    """The bridge's and the loop's tally of the market's streams.

    Both are judged up to the last message that the bridge received: messages that the exchange sent
    at its end may not have arrived. Without a loop, its tally has no meaning.
    """
    ours, theirs = Tally(), Tally()
    for stream in STREAMS:
        kind = truth.kind(stream)
        entries: Any = client.xrange(stream)
        numbers = [int(fields[OURS[kind]]) for _, fields in entries if fields["type"] == kind]
        gaps = [
            (int(fields["from"]), int(fields["to"]))
            for _, fields in entries
            if fields["type"] == "gap" and fields["from"] and fields["to"]
        ]
        wanted = [data[NUMBER[kind]] for data in made[stream] if data[NUMBER[kind]] <= max(numbers)]
        ours += of_numbers(wanted, numbers, gaps)
        written: Any = client.xrange(PREFIX + stream)
        theirs += of_numbers(wanted, [int(fields[NUMBER[kind]]) for _, fields in written])
    return ours, theirs


def leave_row(fault: str, seed: int, ours: Tally, theirs: Tally | None) -> None:
    """Print the row for the table, and write it to the folder CHAOS_REPORT, if set. `theirs` None:
    no loop ran.
    """
    loop = asdict(theirs) if theirs else None
    row = {"fault": fault, "seed": seed, "ours": asdict(ours), "theirs": loop}
    print(json.dumps(row))
    if folder := os.environ.get("CHAOS_REPORT"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{fault.replace(' ', '-')}.json").write_text(json.dumps(row))


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The table of docs/guarantees.md, in Markdown."""
    lines = [
        "| what is done | messages | bridge: lost | marked as missing | duplicated "
        "| loop: lost | duplicated | seed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        ours = Tally(**row["ours"])
        theirs = Tally(**row["theirs"]) if row["theirs"] else None
        loop = f"{theirs.lost:,} | {theirs.duplicated:,}" if theirs else "– | –"
        lines.append(
            f"| {row['fault']} | {ours.made:,} | {ours.lost} | {ours.marked:,} | {ours.duplicated} "
            f"| {loop} | {row['seed']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    files = sorted(Path(sys.argv[1]).glob("*.json"))
    print(table(json.loads(file.read_text()) for file in files))
