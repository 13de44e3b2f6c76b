"""Record cases with this checkout's bridge, and the entries that a checkout's replay makes of them.

    python -m tests.oracle record --into /tmp/oracle --seeds 1-3 kills faults
    python -m tests.oracle record --into /tmp/oracle --faster 8   # every scenario once
    python -m tests.oracle expect --only all,all-b,all-a-b kills  # the cases of the repository
    python -m tests.oracle expect --code ../base --data /tmp/oracle # new expected entries

A new recording gives another journal, since times are real. So recorded journals are kept.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from bridge.core.records import Frame
from bridge.journal.inspection import records
from tests.oracle.cases import (
    SUFFIX,
    Case,
    Entry,
    Steps,
    pack,
    read_case,
    unpack,
    write_case,
    write_expected,
)
from tests.oracle.compare import by_stream
from tests.oracle.mutate import mutate
from tests.oracle.replaying import ReplayFailed, replay
from tests.oracle.scenarios import SCENARIOS, SETTINGS, Rig, Scenario
from tests.support.bridge_run import DEMO_KEYS
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import RunningSimulator, running_simulator_sync

OF_REPLAY = ("publish", "snapshots", "retention")  # sections that determine a replay's entries
JOURNAL = Path("data") / "journal"
PART = (0.3, 0.75)  # of the frames: the part replayed with --from and --to
# Variations of a replay, to detect results that do not follow from the journal
VARIED: Sequence[Mapping[str, str]] = (
    {}, {}, {"ORACLE_CHUNK": "1"}, {"ORACLE_CHUNK": "20"}, {"ORACLE_CHUNK": "100000"},
)  # fmt: skip
SPEED = "20"  # of the paced replay


def record(names: Sequence[str], seeds: Sequence[int], faster: int, into: Path, code: Path) -> None:
    """Record these scenarios, or all, with each seed; the exchange has `faster` times the
    scenario's rate.
    """
    into.mkdir(parents=True, exist_ok=True)
    for name in names or SCENARIOS:
        for seed in seeds:
            case = f"{name}-{seed}" + (f"x{faster}" if faster > 1 else "")
            scenario = replace(SCENARIOS[name], rate=SCENARIOS[name].rate * faster)
            try:
                _record_into(case, scenario, seed, into / (case + SUFFIX), code)
            except (AssertionError, ReplayFailed) as failed:
                print(f"{case} FAILED: {failed}", flush=True)


def _record_into(case: str, scenario: Scenario, seed: int, packed: Path, code: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="oracle-") as folder:
        asyncio.run(_record(case, scenario, seed, Path(folder)))
        expect_in(Path(folder) / "case", code)
        pack(Path(folder) / "case", packed)
    print(f"{packed.name}: {packed.stat().st_size:,} bytes", flush=True)


def expect(cases: Sequence[Path], code: Path, jobs: int, only: Sequence[str] = ()) -> None:
    """Record the cases' expected entries again; `only`: the names of the replays to record."""
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(lambda packed: _expect(packed, code, only), cases):
            pass


def _expect(packed: Path, code: Path, only: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="oracle-") as folder:
        unpack(packed, Path(folder))
        _begin_anew(Path(folder), code, only)
        pack(Path(folder), packed)


def expect_in(folder: Path, code: Path) -> None:
    """Record the expected entries of an unpacked case, with variants that differ between runs."""
    case = read_case(folder)
    with running_redis() as server:
        main, *others = [replay(case, folder, code, server, **each) for each in VARIED]
    unsteady: list[str] = []
    for name, entries in main.items():
        results = [_succeeded(each) for each in (entries, *(other[name] for other in others))]
        if other_name := {"all": "paced", "paced": "all"}.get(name):
            results += [
                _succeeded(each[other_name]) for each in (main, *others) if other_name in each
            ]
        variants = list(varied(results))
        if name == "paced" and variants[1:]:
            unsteady.append(name)  # the result depends on the machine's speed
            continue
        write_expected(folder, name, variants)
        if variants[1:]:
            streams = sorted({stream for each in variants[1:] for stream, _, _ in each})
            print(f"{case.name} {name}: {len(variants)} variants of {', '.join(streams)}")
    steady = {name: steps for name, steps in case.replays.items() if name not in unsteady}
    write_case(folder, replace(case, replays=steady))


def varied(results: Sequence[Sequence[Entry]]) -> Iterator[Sequence[Entry]]:
    """The first result, and of each later one the streams that differ from all results before."""
    known: list[dict[str, object]] = []
    for result in results:
        streams = by_stream(result)
        new = {
            stream: entries
            for stream, entries in streams.items()
            if all(entries != before.get(stream) for before in known)
        }
        if new or not known:
            yield [(stream, *entry) for stream, entries in new.items() for entry in entries]
        known.append(dict(streams))


def _succeeded(result: list[Entry] | ReplayFailed) -> list[Entry]:
    if isinstance(result, ReplayFailed):
        raise result
    return result


def mutate_all(cases: Sequence[Path], seeds: Sequence[int], into: Path, code: Path) -> None:
    """Make cases with mutated journals from these cases."""
    into.mkdir(parents=True, exist_ok=True)
    for packed in cases:
        for seed in seeds:
            name = f"{packed.name.removesuffix(SUFFIX)}-m{seed}"
            with tempfile.TemporaryDirectory(prefix="oracle-") as folder:
                case = unpack(packed, Path(folder))
                write_case(Path(folder), replace(case, name=name))
                for journal in (Path(folder) / "journals").iterdir():
                    mutate(journal, name)
                _begin_anew(Path(folder), code)
                pack(Path(folder), into / (name + SUFFIX))


def _begin_anew(folder: Path, code: Path, only: Sequence[str] = ()) -> None:
    """Replace the replays of a case by the current ones, and record their entries."""
    shutil.rmtree(folder / "expected")
    journals = sorted(path.name for path in (folder / "journals").iterdir())
    every = replays_of(folder, journals)
    replays = {name: steps for name, steps in every.items() if not only or name in only}
    write_case(folder, replace(read_case(folder), replays=replays))
    expect_in(folder, code)


async def _record(name: str, scenario: Scenario, seed: int, folder: Path) -> None:
    run = folder / "run"
    run.mkdir()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running_redis(appendonly=True))
        rig = _rig(scenario, seed, run, server, stack)
        ws_url = rig.exchange.ws_url
        await scenario.run(rig)
        for bridge in rig.bridges.values():
            await bridge.stop()
    _lay_out(name, scenario, run, folder / "case", ws_url)


def _rig(
    scenario: Scenario, seed: int, run: Path, server: RedisServer, stack: AsyncExitStack
) -> Rig:
    def start(seed: int, port: int = 0) -> RunningSimulator:
        options = ["--rate", str(scenario.rate), "--seed", str(seed), "--port", str(port)]
        options += ["--accept-key", DEMO_KEYS["PUBLIC_KEY"]]
        return stack.enter_context(running_simulator_sync(*options))

    sections = scenario.sections or {}
    return Rig(run, server, start(seed), start, stack, seed, scenario.streams, sections, {})


def _lay_out(name: str, scenario: Scenario, run: Path, folder: Path, ws_url: str) -> None:
    """Write journals and case.json in the format of `cases`."""
    journals = sorted(path.name for path in run.iterdir())
    for journal in journals:
        shutil.copytree(run / journal / JOURNAL, folder / "journals" / journal)
    sections = scenario.sections or {}
    settings: dict[str, object] = {"exchange": {"ws_url": ws_url}}
    for section in OF_REPLAY:
        merged = SETTINGS.get(section, {}) | sections.get(section, {})
        settings[section] = merged
    write_case(folder, Case(name, scenario.about, settings, replays_of(folder, journals)))


def replays_of(folder: Path, journals: Sequence[str]) -> dict[str, Steps]:
    """Replays of each journal, of the first also paced and in part, and of journals one after
    another.
    """
    first = journals[0]
    span = ("--from", *_moments(folder / "journals" / first))
    part = (first, span[0], span[1], "--to", span[2])
    replays: dict[str, Steps] = {
        "all": [[first]],
        "paced": [[first, "--speed", SPEED]],
        "part": [part],
    }
    for other in journals[1:]:
        replays |= {f"all-{other}": [[other]], f"all-{first}-{other}": [[first], [other]]}
    return replays


def _moments(journal: Path) -> tuple[str, str]:
    """Begin and end of the replayed part, µs since 1970."""
    times = sorted(each.received_us for each in records(journal) if isinstance(each, Frame))
    begin, end = (times[int(len(times) * share)] for share in PART)
    return str(begin), str(end)
