"""The result of an audit of one stream, source by source, and its problems (pure)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bridge.inspect.continuity import Break, Marked, Run, Tally

MAX_NAMED = 5
MOST_KEPT = 1000  # listed in JSON


@dataclass(slots=True)
class Source:
    """One place that keeps entries of the stream. `content`: SHA-256 over the content of its
    messages, in their order.
    """

    name: str
    where: str
    tally: Tally
    content: str


@dataclass(slots=True)
class Recovered:
    """Gaps in the gap log with one cause and one way of ending."""

    cause: str
    how: str
    is_recovered: bool
    gaps: int = 0
    numbers: int = 0


@dataclass(slots=True)
class JournalCheck:
    """A journal's messages of the same time, compared with Redis.

    `copies`: received before on another connection. `fetched`: Redis has the copy from the
    exchange's history, which came first. `missing`: received, within the range, not in Redis, and
    in no gap. `in_gaps`: the same, but in a gap. `overtaken`: states that Redis need not have.
    `elsewhere`: messages in Redis that the journal does not have.
    """

    where: str
    messages: int = 0
    copies: int = 0
    same: int = 0
    fetched: int = 0
    other: int = 0
    in_gaps: int = 0
    overtaken: int = 0
    missing: int = 0
    first_missing: list[str] = field(default_factory=list)
    first_other: list[str] = field(default_factory=list)
    refused: int = 0
    damaged: int = 0
    elsewhere: int = 0

    def add_damaged(self, lines: int) -> None:
        """Count further unreadable lines."""
        self.damaged += lines

    def add_elsewhere(self, messages: int) -> None:
        """Set the number of messages in Redis that the journal does not have."""
        self.elsewhere = messages

    def add(self, other: "JournalCheck", *, seen_before: int) -> None:
        """Add the result of a later part of the journal. `seen_before` of its messages count as
        copies, since the earlier part had them already.
        """
        for name, number in asdict(other).items():
            if isinstance(number, int):
                setattr(self, name, getattr(self, name) + number)
        self.same -= seen_before
        self.copies += seen_before
        self.first_missing = [*self.first_missing, *other.first_missing][:MOST_KEPT]
        self.first_other = [*self.first_other, *other.first_other][:MOST_KEPT]


@dataclass(slots=True)
class ArchiveCheck:
    """The archive's entries compared with those of Redis, where both should have them."""

    compared: int = 0
    only_redis: int = 0
    only_archive: int = 0
    other: int = 0
    first_different: list[str] = field(default_factory=list)

    def different(self, entry_id: str) -> None:
        """Record an entry that differs."""
        if len(self.first_different) < MOST_KEPT:
            self.first_different.append(entry_id)


@dataclass(slots=True)
class Certificate:
    """The result of an audit. `problems`: a sentence each; without any, the stream is complete
    except for its gaps.
    """

    stream: str
    sources: list[Source] = field(default_factory=list)
    recovered: list[Recovered] = field(default_factory=list)
    journal: JournalCheck | None = None
    archive: ArchiveCheck | None = None
    notes: list[str] = field(default_factory=list)

    def add_journal(self, check: JournalCheck) -> None:
        """Set the result of the comparison with a journal."""
        self.journal = check

    def add_archive(self, check: ArchiveCheck) -> None:
        """Set the result of the comparison with an archive."""
        self.archive = check

    @property
    def problems(self) -> list[str]:
        if not any(source.tally.entries for source in self.sources):
            return ["there is no entry in this range: nothing can be certified"]
        found = [one for source in self.sources for one in _of_source(source)]
        if self.journal is not None:
            found += _of_journal(self.journal)
        if self.archive is not None:
            found += _of_archive(self.archive)
        return found

    def plain(self) -> dict[str, Any]:
        """The certificate as plain values, for JSON."""
        document: dict[str, Any] = {"whole": not self.problems, "problems": self.problems}
        document |= asdict(self)
        for plain, source in zip(document["sources"], self.sources, strict=True):
            tally = source.tally
            plain["tally"]["gaps"] = [_named(gap) for gap in tally.gaps]
            plain["tally"]["first_breaks"] = [_named(one) for one in tally.first_breaks]
        return document


def _named(one: Marked | Break) -> dict[str, Any]:
    facts = one._asdict()
    if one.run is not None:
        facts["run"] = one.run._asdict()
    return facts


def _of_source(source: Source) -> Iterator[str]:
    tally, name = source.tally, source.name
    if tally.breaks:
        runs = ", ".join(_run(one.run) for one in tally.first_breaks[:MAX_NAMED])
        places = _counted(tally.breaks, "place")
        yield f"{name}: numbers are missing without a gap at {places}: {runs}"
    if tally.disorder:
        yield f"{name}: the IDs of {tally.disorder} entries do not rise"
    if tally.snapshots_wrong:
        first = ", ".join(tally.snapshots_wrong[:MAX_NAMED])
        yield (
            f"{name}: {len(tally.snapshots_wrong)} snapshots are not the book that the changes "
            f"before them make: {first}"
        )


def _of_journal(check: JournalCheck) -> Iterator[str]:
    if check.missing:
        yield (
            f"journal: {check.missing} messages were received, are not in Redis, and no gap "
            f"has them: {', '.join(check.first_missing[:MAX_NAMED])}"
        )
    if check.other:
        yield (
            f"journal: {check.other} messages differ in Redis: "
            f"{', '.join(check.first_other[:MAX_NAMED])}"
        )


def _of_archive(check: ArchiveCheck) -> Iterator[str]:
    different = check.only_redis + check.only_archive + check.other
    if different:
        yield (
            f"archive: {check.only_redis} entries only in Redis, {check.only_archive} only in the "
            f"archive, {check.other} differ: {', '.join(check.first_different[:MAX_NAMED])}"
        )


def _run(run: Run) -> str:
    return str(run.first) if run.first == run.last else f"{run.first}…{run.last}"


# ---- text ----------------------------------------------------------------------------------------


def lines(certificate: Certificate) -> Iterator[tuple[str, str]]:
    """The certificate for people: a label and a sentence for each line."""
    for source in certificate.sources:
        yield from _source(source)
    for one in certificate.recovered:
        outcome = "recovered" if one.is_recovered else "missing"
        numbers = f", {one.numbers:,} numbers" if one.numbers else ""
        how = f" ({one.how})" if one.how else ""
        yield "gap log", f"{_counted(one.gaps, 'gap')}: {one.cause}{numbers}, {outcome}{how}"
    if certificate.journal is not None:
        yield from _journal(certificate.journal)
    if certificate.archive is not None:
        check = certificate.archive
        yield "compared", f"archive and Redis: {check.compared:,} entries are the same in both"
    for note in certificate.notes:
        yield "note", note
    problems = certificate.problems
    for problem in problems:
        yield "WRONG", problem
    if not problems:
        yield "whole", "nothing is missing outside of its gaps"


def _source(source: Source) -> Iterator[tuple[str, str]]:
    tally, name = source.tally, source.name
    yield name, source.where
    if not tally.entries:
        yield "", "no entry in this range"
        return
    most_first = sorted(tally.by_type.items(), key=lambda each: -each[1])
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in most_first)
    yield "", f"{_entries(tally.entries)} from {tally.first_id} to {tally.last_id}: {kinds}"
    if tally.first_number is not None and tally.last_number is not None:
        state = f"broken at {_counted(tally.breaks, 'place')}" if tally.breaks else "dense"
        gaps = f", but for {_counted(len(tally.gaps), 'gap')}" if tally.gaps else ""
        yield "", f"numbers {tally.first_number} to {tally.last_number}: {state}{gaps}"
    if tally.undecodable:
        yield "", f"{tally.undecodable:,} entries are not of the contract: another program's"
    if tally.logged:
        yield "", f"{tally.logged:,} missing numbers are named by the gap log"
    if snapshots := tally.by_type.get("depth_snapshot"):
        yield (
            "",
            (
                f"book: {_counted(snapshots, 'snapshot')}, "
                f"{tally.snapshots_compared:,} compared with the changes before them"
            ),
        )
    for cause, count in _causes(tally.gaps):
        yield "", f"{_counted(count, 'gap')}: {cause}"
    yield "", f"content {source.content}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number:,} entries"


def _causes(gaps: Sequence[Any]) -> list[tuple[str, int]]:
    return Counter(gap.cause for gap in gaps).most_common()


def _journal(check: JournalCheck) -> Iterator[tuple[str, str]]:
    yield "journal", check.where
    yield (
        "",
        (
            f"{check.messages:,} messages of this range, {check.copies:,} of them further copies; "
            f"{check.same:,} are in Redis as they were received"
        ),
    )
    if check.fetched:
        yield "", f"{check.fetched:,} are there as the exchange's history has them"
    if check.in_gaps:
        yield "", f"{check.in_gaps:,} are inside a gap: received, then given up"
    if check.overtaken:
        yield (
            "",
            (
                f"{check.overtaken:,} are not in Redis and need not be: states that a newer one "
                "had overtaken, or changes that another cut of the same window has"
            ),
        )
    if check.elsewhere:
        yield (
            "",
            (
                f"{check.elsewhere:,} messages in Redis are not in this journal: another bridge "
                "was first, or it does not reach back so far"
            ),
        )
    if check.refused:
        yield "", f"{check.refused:,} messages were refused: see bridge:quarantine"
    if check.damaged:
        yield "", f"{check.damaged:,} lines cannot be read"
