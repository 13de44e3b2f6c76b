"""`make compare`: every peer in one run. Prints tables, writes docs/compare.md and its picture.

COMPARE_ONLY=bridge      only peers whose name contains this; writes no files
COMPARE_MESSAGES=10000   trades a measurement of speed
COMPARE_RATE=300         frames a second during faults, half of them trades
COMPARE_LONG=1           also a Redis outage of 300 s
"""

import os
import platform
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from redis import Redis, RedisError

from benchmarks.compare import page, reading, scene, speed
from benchmarks.compare.page import Line
from benchmarks.compare.peers import READERS, WRITERS, Reader, Writer, title, why_not
from benchmarks.compare.scene import Arrived, Scene
from benchmarks.ground import ROOT, Broken, Ground, redis_server
from benchmarks.measure import Sample
from benchmarks.workload import make

Peer = TypeVar("Peer", Writer, Reader)

ONLY = os.environ.get("COMPARE_ONLY", "")
MESSAGES = int(os.environ.get("COMPARE_MESSAGES", "10000"))
RATE = float(os.environ.get("COMPARE_RATE", "300"))
PACED = 1000.0
PACED_MESSAGES = 5_000
READ_COUNT = 5_000
FAULTS: dict[str, tuple[Callable[[Scene], None], float]] = {
    "Redis killed for 3 s": (scene.redis_killed(3), 15),
    "Redis killed for 40 s": (scene.redis_killed(40), 30),
    f"{scene.REPLIES} replies lost": (scene.replies_lost, 10),
    "the exchange skips": (scene.exchange_skips, 15),
    f"process killed {scene.KILLS} times": (scene.process_killed, 20),
}
if os.environ.get("COMPARE_LONG"):
    FAULTS["Redis killed for 300 s"] = (scene.redis_killed(300), 60)
INTRODUCTION = """
The same trades and the same Redis for all, each program as its own docs advise. Figures of one run
belong together; those of two runs do not. **Bold** is the best value of a column. A new
peer is a small program and a row in `benchmarks/compare/peers.py`.

![CPU a message, and what was lost](pictures/compare.svg)

"""
SPEED = f"""{MESSAGES:,} trades of five markets as fast as the socket takes them, and
{PACED_MESSAGES:,} sent singly. The rate is until Redis has all; CPU is the process' own; p50 and
p99 are from the exchange's socket until a waiting reader of Redis has a message. The bridge
validates, keeps a journal and gives each entry the exchange's identity; the loops do none of
that."""
ARRIVED = """All writers run at once against one simulator and one Redis (AOF), behind a proxy
each, so all get the same fault. The simulator's trades are the reference: *lost* is neither in
Redis nor in a `gap`, *marked* is in a gap, *twice* has more than one entry. A killed process is
restarted at once. The reasons:

- Trades suit the bridge best: it fetches missed ones from the exchange's history. Changes of books
  cannot be fetched; the bridge marks them (see [what is guaranteed](guarantees.md)).
- redis-py retries nothing where it is made by `from_url`, as in two of the loops: after a lost
  reply they report "not written" for entries that Redis has, and continue. `Redis(host=…)` retries
  ten times: it outlasts a short outage, and writes twice what it got no reply for.
- cryptofeed 2.x and the bus of nautilus_trader 1.221 end their writer at the first error of Redis,
  and the process continues without it."""
READING = """One worker under one name; with a fault, each message takes a millisecond. A killed
worker is restarted at once; *lost* was not handled within the time limit, *twice* was handled more
than once. The kit acknowledges in batches, so after a kill the last one is handled again;
FastStream acknowledges each message by itself. The loop of redis-py reads only new entries."""
READ_FAULTS: dict[str, float | None] = {
    "Redis killed for 3 s": 3.0,
    f"process killed {reading.KILLS} times": None,
}


def main() -> int:
    """Measure, print, write. Returns the exit code."""
    if sys.argv[1:]:  # options are environment variables
        print(__doc__)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="compare-") as name:
        folder = Path(name)
        writers, readers = measured_writers(folder), measured_readers(folder)
        minutes = (time.monotonic() - begun) / 60
        made = f"{datetime.now(UTC):%Y-%m-%d}, {_machine(folder)}; {minutes:.0f} minutes"
    text = "\n".join(_document(writers, readers, made)) + "\n"
    print(text)
    if not ONLY:
        (ROOT / "docs/compare.md").write_text(text, "utf-8")
        (ROOT / "docs/pictures/compare.svg").write_text(page.picture(writers, made), "utf-8")
    return 0


def measured_writers(folder: Path) -> list[Line]:
    """Each writer's speed, one after the other, and then the faults, all writers at once."""
    chosen = [each for each in WRITERS if ONLY in each.name]
    able = [each for each in chosen if why_not(each) is None]
    lines = {each.name: _line(each, "bridge") for each in chosen}
    few, many = make(PACED_MESSAGES, types=("trade",)), make(MESSAGES, types=("trade",))
    few.save(folder / "few")
    many.save(folder / "many")
    with redis_server(folder) as (port, pid):
        ground = Ground(folder, many, folder / "many", port, [pid])
        for number, each in enumerate(able):
            _progress(f"{each.name}, as fast as it goes")
            fast = _try(speed.saturated, each, replace(ground, folder=folder / f"{number}-fast"))
            _progress(f"{each.name}, {PACED:g} a second")
            own = replace(
                ground,
                folder=folder / f"{number}-paced",
                workload=few,
                workload_path=folder / "few",
                rate=PACED,
                is_read=True,
            )
            lines[each.name] = replace(
                lines[each.name], fast=fast, paced=_try(speed.paced, each, own)
            )
    for number, (fault, (play, settle_s)) in enumerate(FAULTS.items() if able else ()):
        _progress(fault)
        found = scene.play(able, play, folder / f"fault-{number}", RATE, settle_s)
        for each in able:
            arrived = {**lines[each.name].arrived, fault: found.get(each.name, "wrote nothing")}
            lines[each.name] = replace(lines[each.name], arrived=arrived)
    return list(lines.values())


def measured_readers(folder: Path) -> list[Line]:
    """Each reader's speed and faults, one after the other."""
    chosen = [each for each in READERS if ONLY in each.name]
    lines = []
    with redis_server(folder) as (port, pid):
        workload = make(1)  # readers create their own messages
        for number, each in enumerate(chosen):
            line = _line(each, "kit")
            if why_not(each) is None:
                _progress(each.name)
                ground = Ground(folder / f"read-{number}", workload, folder, port, [pid])
                line = replace(line, fast=_try(_read, each, ground))
                for fault, outage_s in READ_FAULTS.items():
                    _progress(f"{each.name}: {fault}")
                    own = folder / f"read-{number}-{outage_s}"
                    handled = _killed(each, own, outage_s)
                    line = replace(line, arrived={**line.arrived, fault: handled})
            lines.append(line)
    return lines


def _read(reader: Reader, ground: Ground) -> Sample:
    return reading.speed(reader, ground, READ_COUNT)


def _killed(reader: Reader, folder: Path, outage_s: float | None) -> Arrived | str:
    try:
        return reading.killed(reader, folder, READ_COUNT, outage_s)
    except Broken as error:
        return f"failed: {_short(error)}"


def _try(measure: Callable[[Peer, Ground], Sample], peer: Peer, ground: Ground) -> Sample | str:
    try:
        return measure(peer, ground)
    except (Broken, RedisError) as error:
        return f"failed: {_short(error)}"


def _short(error: Exception) -> str:
    """The last line, shortened for a table; the whole text goes to stderr."""
    print(error, file=sys.stderr)
    return (str(error).splitlines() or [repr(error)])[-1][:80].replace("|", " ")


def _line(peer: Writer | Reader, ours: str) -> Line:
    reason = why_not(peer)
    status = "" if reason is None else f"not run: {reason}"
    return Line(title(peer), peer.note, peer.name.startswith(ours), status, status, {})


def _document(writers: Sequence[Line], readers: Sequence[Line], made: str) -> Iterator[str]:
    yield "# Beside the others\n"
    yield textwrap.fill(f"Made by `make compare`: {made}.", 100)
    yield from INTRODUCTION.splitlines()
    yield "## From the exchange to Redis\n"
    yield from page.speed_table(writers, PACED)
    yield f"\n{SPEED}\n"
    yield "## What arrived\n"
    yield from page.fault_table(writers, list(FAULTS))
    yield f"\n{ARRIVED}\n"
    yield "## From Redis to a handler\n"
    yield from page.read_table(readers)
    yield ""
    yield from page.fault_table(readers, list(READ_FAULTS))
    yield f"\n{READING}\n"
    yield "## Who is who\n"
    for line in (*writers, *readers):
        text = f"- **{line.title}**: {line.note}."
        yield textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)


def _machine(folder: Path) -> str:
    with redis_server(folder) as (port, _), Redis(port=port) as client:
        server = dict(client.info("server"))
    return (
        f"{os.cpu_count()} cores ({platform.system()} {platform.machine()}), load "
        f"{os.getloadavg()[0]:.1f}, Redis {server['redis_version']}, Python "
        f"{platform.python_version()}"
    )


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
