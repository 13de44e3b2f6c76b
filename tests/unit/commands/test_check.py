"""The output of `check` for one server and for several shards, from literal findings."""

from bridge.commands.check import each_once
from bridge.runtime.checks.finding import Finding, Level

HERE = Finding(Level.OK, "redis", "answers")
NO_DISK = Finding(Level.WARNING, "persistence", "off")
MAY = Finding(Level.OK, "rights", "all")
UNAVAILABLE = Finding(Level.PROBLEM, "redis", "cannot be used")
NOT = Finding(Level.NOT_CHECKED, "settings", "see above")


def summaries(*found: list[Finding]) -> list[str]:
    return [f"{one.level} {one.subject}" for one in each_once(found)]


def test_findings_of_one_server_are_reported_unchanged() -> None:
    assert summaries([HERE, NO_DISK, MAY]) == ["ok redis", "warning persistence", "ok rights"]


def test_of_several_shards_the_first_is_described_and_others_only_with_their_faults() -> None:
    second = Finding(Level.OK, "redis", "answers at another node")

    assert summaries([HERE, NO_DISK, MAY], [second, NO_DISK, MAY], [UNAVAILABLE, NOT]) == [
        "ok redis, shard 0", "warning persistence", "ok rights", "ok redis, shard 1",
        "problem redis, shard 2", "not checked settings, shard 2",
    ]  # fmt: skip
