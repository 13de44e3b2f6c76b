"""Compare the entries that a checkout replays from recorded journals with the recorded entries.

    python -m tests.oracle compare                            # this checkout, the cases beside it
    python -m tests.oracle compare --data /tmp/oracle kills   # cases of a folder, by name
    python -m tests.oracle compare --code ../other            # with another checkout's bridge

Entries, their IDs, fields and order must be the same in each stream. First differences are shown,
and a line for each replay; exit code 1 where there are any.

`RENAMED` lists names of the contract that changed since the recording, `EXPLAINED` the intended
differences. A stream that was recorded in several variants (`cases`) may equal any of them.
"""

import json
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.oracle.cases import Entry, read_expected, unpack
from tests.oracle.replaying import ReplayFailed, replay
from tests.support.redis_server import running_redis

Stored = tuple[str, Mapping[str, str]]  # an entry's ID and fields


VALUES = {"types": "type", "causes": "cause", "hows": "how"}  # fields whose values were renamed


@dataclass(frozen=True)
class Renamed:
    """Names of the contract: as recorded → as they are now."""

    fields: Mapping[str, str] = field(default_factory=dict)
    streams: Mapping[str, str] = field(default_factory=dict)  # names of keys
    types: Mapping[str, str] = field(default_factory=dict)  # values of `type`
    causes: Mapping[str, str] = field(default_factory=dict)  # of gaps, and in bridge:gaps
    hows: Mapping[str, str] = field(default_factory=dict)  # in bridge:gaps

    def as_in(self, entries: Sequence[Entry]) -> "Renamed":
        """The renamings whose new name is among these entries: older code does not use a
        newer name.
        """
        found = Renamed(
            fields={name: "" for _, _, fields in entries for name in fields},
            streams={stream: "" for stream, _, _ in entries},
            **{
                table: {fields.get(name, ""): "" for _, _, fields in entries}
                for table, name in VALUES.items()
            },
        )
        in_use = {
            table: {old: new for old, new in renamed.items() if new in getattr(found, table)}
            for table, renamed in vars(self).items()
        }
        return Renamed(**in_use)

    def entry(self, entry: Entry) -> Entry:
        """The entry with the current names."""
        stream, entry_id, recorded = entry
        values = {name: getattr(self, table) for table, name in VALUES.items()}
        now = {
            self.fields.get(name, name): values.get(name, {}).get(value, value)
            for name, value in recorded.items()
        }
        return self.streams.get(stream, stream), entry_id, now


RENAMED = Renamed(
    fields={"twin": "occurrence", "repaired": "recovered"},
    causes={"silent": "stale", "buffer full": "overflow"},
)


# A gap is logged when Redis has replied, in the order of the replies of several streams: IDs and
# order depend on the run, the fields of each gap on the journal.
UNORDERED = frozenset(["bridge:gaps"])


@dataclass(frozen=True)
class Explained:
    """An intended difference, and the reason.

    `cases`: prefixes of case names. `fits` gets the stream, the recorded entry and the current
    entry (None: there is none).
    """

    why: str
    cases: tuple[str, ...]
    fits: Callable[[str, Stored | None, Stored | None], bool]


def is_outage(entry: Stored | None) -> bool:
    """Whether an entry is a gap with the times of an outage."""
    return entry is not None and entry[1].get("type") == "gap" and bool(entry[1].get("from_us"))


def is_renumbering(entry: Stored | None) -> bool:
    """Whether an entry is a gap because the exchange's numbers restarted."""
    return entry is not None and entry[1].get("cause") == "renumbered"


def has_more_fields(entry: Stored | None, now: Stored | None) -> bool:
    """Whether the entries are equal except for fields that were unnamed when recorded."""
    if entry is None or now is None:
        return False
    more = now[1].keys() - entry[1].keys()
    return entry[0] == now[0] and dict(entry[1]) == {
        name: value for name, value in now[1].items() if name not in more
    }


def has_fractions_as_text(entry: Stored | None, now: Stored | None) -> bool:
    """Whether the entries are equal except for numbers in `extra`, which are strings now."""
    if entry is None or now is None:
        return False
    others = [{k: v for k, v in each[1].items() if k != "extra"} for each in (entry, now)]
    was = json.loads(entry[1].get("extra") or "{}")
    numbers = json.loads(now[1].get("extra") or "{}")
    return others[0] == others[1] and all(
        was[name] == value or (isinstance(was[name], float) and float(value) == was[name])
        for name, value in numbers.items()
    )


def keeps_less_of_it(entry: Stored | None, now: Stored | None) -> bool:
    """Whether the entries are the same refused message, of which the current one keeps a
    shorter part.
    """
    if entry is None or now is None:
        return False
    kept = now[1].get("raw", "")
    cut = {**entry[1], "raw": kept}
    is_shorter = bool(kept) and entry[1].get("raw", "").startswith(kept)
    return is_shorter and entry[0] == now[0] and cut == dict(now[1])


EXPLAINED: Sequence[Explained] = (
    Explained(
        "the quarantine keeps the first 16,384 bytes of a message",
        ("misheard",),
        lambda stream, recorded, found: (
            stream == "bridge:quarantine" and keeps_less_of_it(recorded, found)
        ),
    ),
    Explained(
        "a number with a fraction or an exponent is a string in `extra`, so that it is JSON",
        ("",),
        lambda _, recorded, found: has_fractions_as_text(recorded, found),
    ),
    Explained(
        "the contract names more fields of requests for quote",
        ("",),
        lambda stream, recorded, found: (
            stream == "account.rfqUpdate" and has_more_fields(recorded, found)
        ),
    ),
    Explained(
        "restarted numbers are recognised by their time: nothing is dropped as late or duplicate",
        ("renumbered",),
        lambda _, recorded, found: recorded is None and found is not None,
    ),
    Explained(
        "the gap at a restart of the numbers is before the first of them",
        ("renumbered",),
        lambda _, recorded, found: found is None and is_renumbering(recorded),
    ),
    Explained(
        "an interval in which neither of two bridges received anything is marked once",
        ("two-bridges",),
        lambda _, recorded, found: found is None and is_outage(recorded),
    ),
)


@dataclass(frozen=True)
class Difference:
    """A difference in a stream: the expected entry, and the found one (None: there is none)."""

    stream: str
    expected: Stored | None
    found: Stored | None

    def __str__(self) -> str:
        if self.expected is None:
            return f"{self.stream} {_shown(self.found)} was not there"
        if self.found is None:
            return f"{self.stream} {_shown(self.expected)} is missing"
        parts = [] if self.expected[0] == self.found[0] else [f"the ID is {self.found[0]}"]
        before, now = self.expected[1], self.found[1]
        parts += [
            f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]
        if not parts:
            parts = [f"fields are in another order: {', '.join(now)}"]
        return f"{self.stream} {self.expected[0]}: {'; '.join(parts)}"


def _shown(entry: Stored | None) -> str:
    entry_id, fields = entry or ("", {})
    shown = ("type", "trade_id", "last_update_id", "from", "to", "from_us", "to_us", "cause",
             "event_us", "reason")  # fmt: skip
    return f"{entry_id} ({', '.join(f'{k}={fields[k]}' for k in shown if fields.get(k))})"


@dataclass(frozen=True)
class Verdict:
    """The result of one replay of one case. `explained`: the number of differences by
    explanation.
    """

    replay: str
    entries: int
    differences: Sequence[Difference]
    explained: Mapping[str, int]
    failure: str = ""

    @property
    def is_same(self) -> bool:
        return not self.differences and not self.failure


def run(cases: Sequence[Path], code: Path, jobs: int, shown: int) -> int:
    """Compare these cases and print the verdicts; the exit code."""
    different = total = 0
    with ThreadPoolExecutor(jobs) as pool:
        for packed, verdicts in zip(cases, pool.map(lambda p: check(p, code), cases), strict=True):
            for verdict in verdicts:
                total += 1
                different += not verdict.is_same
                print("\n".join(verdict_lines(packed, verdict, shown)), flush=True)
    print(f"{total - different} of {total} replays are the same")
    return 1 if different else 0


def verdict_lines(packed: Path, verdict: Verdict, shown: int) -> Iterator[str]:
    """The lines to print for a verdict."""
    name = f"{packed.name.partition('.')[0]} {verdict.replay}"
    if verdict.failure:
        yield f"FAILED     {name}: {verdict.failure}"
        return
    explained = "".join(f"; {count} × {why}" for why, count in verdict.explained.items())
    if verdict.is_same:
        yield f"same       {name}: {verdict.entries:,} entries{explained}"
        return
    streams = {each.stream for each in verdict.differences}
    yield (
        f"DIFFERENT  {name}: {len(verdict.differences):,} differences in {len(streams)} streams, "
        f"{verdict.entries:,} entries{explained}"
    )
    firsts = [
        next(each for each in verdict.differences if each.stream == s) for s in sorted(streams)
    ]
    for difference in firsts[:shown]:
        yield f"    {difference}"


def check(packed: Path, code: Path) -> list[Verdict]:
    """Replay one case with the code of a checkout, and compare."""
    with tempfile.TemporaryDirectory(prefix="oracle-") as name, running_redis() as server:
        folder = Path(name)
        case = unpack(packed, folder)
        expected = {each: read_expected(folder, each) for each in case.replays}
        found = replay(case, folder, code, server)
    return [judge(case.name, each, expected[each], found[each]) for each in case.replays]


def judge(
    case: str,
    replayed: str,
    recorded: Sequence[Sequence[Entry]],
    found: Sequence[Entry] | ReplayFailed,
) -> Verdict:
    """The verdict: differences, and how many of them are explained."""
    if isinstance(found, ReplayFailed):
        return Verdict(replayed, 0, (), {}, str(found))
    renamed = RENAMED.as_in(found)
    expected = [[renamed.entry(entry) for entry in each] for each in recorded]
    left: list[Difference] = []
    explained: dict[str, int] = {}
    for difference in differences(expected, found):
        why = next((e.why for e in EXPLAINED if _fits(e, case, difference)), None)
        if why is None:
            left.append(difference)
        else:
            explained[why] = explained.get(why, 0) + 1
    return Verdict(replayed, len(found), left, explained)


def _fits(explained: Explained, case: str, difference: Difference) -> bool:
    return case.startswith(explained.cases) and explained.fits(
        difference.stream, difference.expected, difference.found
    )


def differences(expected: Sequence[Sequence[Entry]], found: Sequence[Entry]) -> list[Difference]:
    """The differences from the nearest recorded variant, stream by stream, in order."""
    variants, now = [by_stream(each) for each in expected], by_stream(found)
    differences: list[Difference] = []
    for stream in sorted({*variants[0], *now}):
        recorded = [each.get(stream, []) for each in variants if stream in each] or [[]]
        found_in = [list(_in_stream(stream, each, now.get(stream, []))) for each in recorded]
        differences += sorted(found_in, key=len)[0]
    return differences


def _in_stream(
    stream: str, before: Sequence[Stored], now: Sequence[Stored]
) -> Iterator[Difference]:
    """The differences in one stream.

    Entries are matched by ID, so that an added or missing entry is a single difference; the
    remaining ones are matched by content.
    """
    old, new = dict(before), dict(now)
    elsewhere: dict[str, list[Stored]] = {}
    for entry_id, fields in now:
        if entry_id not in old:
            elsewhere.setdefault(json.dumps(fields), []).append((entry_id, fields))
    moved: set[str] = set()
    for entry_id in sorted({*old, *new}, key=_parsed):
        one = (entry_id, old[entry_id]) if entry_id in old else None
        other = (entry_id, new[entry_id]) if entry_id in new else None
        if one and not other and (same := elsewhere.get(json.dumps(one[1]))):
            other = same.pop(0)
            moved.add(other[0])
        if one is None and entry_id in moved:
            continue
        is_same = (
            one and other and one[0] == other[0] and json.dumps(one[1]) == json.dumps(other[1])
        )
        if not is_same:
            yield Difference(stream, one, other)


def _parsed(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)


def by_stream(entries: Sequence[Entry]) -> dict[str, list[Stored]]:
    """The entries of each stream, in the order of Redis.

    In streams without a fixed order (UNORDERED) the entries are sorted and get IDs made from their
    content.
    """
    found: dict[str, list[Stored]] = {}
    for stream, entry_id, fields in entries:
        found.setdefault(stream, []).append((entry_id, fields))
    for stream in UNORDERED & found.keys():
        contents = sorted((list(fields.items()) for _, fields in found[stream]), key=str)
        found[stream] = [(f"0-{_hashed(each)}", dict(each)) for each in contents]
    return found


def _hashed(content: Sequence[tuple[str, str]]) -> int:
    return zlib.crc32(json.dumps(content).encode())
