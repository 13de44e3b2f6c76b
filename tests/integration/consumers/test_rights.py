"""The rights in `deploy/redis/users.acl` suffice for a consumer; a missing right is reported."""

import re
from pathlib import Path

import pytest

from tests.support.consumer_commands import consumers
from tests.support.consumer_worker import ROOT
from tests.support.consumer_worker import bench as running_bench
from tests.support.picky import (
    ALL_BUT_SEVEN,
    PICKY,
    RUN,
    STREAM,
    dead_letters,
    last_id,
    seen,
    trades,
)
from tests.support.redis_server import running_redis

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine


def rights(group: str) -> list[str]:
    """The rights of user `candles`, for another group, with those for `replay` and the test's
    handler.
    """
    lines = (ROOT / "deploy/redis/users.acl").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("user candles "))
    rule = line.partition(">CHANGE-candles ")[2].replace("candles", group)
    head, _, selectors = rule.partition("(")
    replay = f"{head}+scan (+xgroup|destroy {selectors}"
    return [*_split(replay), "(~how ~begun +get +incr)"]


def _split(rule: str) -> list[str]:
    """Split the rule into arguments; ACL SETUSER takes each selector as one argument."""
    return re.findall(r"\([^)]*\)|\S+", rule)


@pytest.mark.parametrize(("name", "group"), [("Picky", "picky"), ("Ordered", "ordered")])
def test_a_consumer_works_with_these_rights(tmp_path: Path, name: str, group: str) -> None:
    with running_redis() as server, running_bench(tmp_path, server.url) as one:
        (one.folder / "outside.py").write_text(PICKY)
        one.register(STREAM)
        one.add(STREAM, trades(1, 50))
        one.redis.set("how", "fail")
        one.redis.execute_command("ACL", "SETUSER", "consumer", "on", ">secret", *rights(group))
        one.url = server.url.replace("redis://", "redis://consumer:secret@")
        worker = one.start(f"outside:{name}", *RUN)
        one.until(lambda: dead_letters(one, group))
        one.await_group(STREAM, group, last_id(50))
        assert seen(one, group) == ALL_BUT_SEVEN
        one.redis.delete("how")
        sent = consumers(
            one.folder, "deadletters", "retry", group, "--all", BRIDGE_REDIS__URL=one.url
        )
        assert sent.returncode == 0, sent.stderr
        one.until(lambda: seen(one, group)[7] == 1)
        shown = consumers(one.folder, "status", "--json", BRIDGE_REDIS__URL=one.url)
        assert shown.returncode == 0, shown.stderr
        again = consumers(
            one.folder, "replay", f"outside:{name}", "--from", "0", BRIDGE_REDIS__URL=one.url
        )
        assert again.returncode == 0, again.stderr
        assert worker.stop() == 0
        assert "NOPERM" not in worker.err


def test_a_replay_that_may_not_clear_up_makes_nothing(tmp_path: Path) -> None:
    with running_redis() as server, running_bench(tmp_path, server.url) as one:
        (one.folder / "outside.py").write_text(PICKY)
        one.register(STREAM)
        one.add(STREAM, trades(1, 50))
        rules = [*rights("picky"), "-xgroup|destroy"]
        rules = [rule.replace("+xgroup|destroy ", "") for rule in rules]
        one.redis.execute_command("ACL", "SETUSER", "consumer", "on", ">secret", *rules)
        url = server.url.replace("redis://", "redis://consumer:secret@")
        done = consumers(
            one.folder, "replay", "outside:Picky", "--from", "0", BRIDGE_REDIS__URL=url
        )
        assert done.returncode == 1
        assert "'xgroup|destroy'" in done.stderr
        assert one.redis.xinfo_groups(STREAM) == []
        assert one.redis.keys("consumers:*") == []


@pytest.mark.parametrize(
    ("name", "command"), [("Picky", "xack"), ("Picky", "xinfo"), ("Ordered", "hdel")]
)
def test_a_worker_whose_script_may_not_run_a_command_names_it_and_ends(
    tmp_path: Path, name: str, command: str
) -> None:
    with running_redis() as server, running_bench(tmp_path, server.url) as one:
        (one.folder / "outside.py").write_text(PICKY)
        one.register(STREAM)
        one.add(STREAM, trades(1, 50))
        user = ("consumer", "on", ">secret", "~*", "&*", "+@all", f"-{command}")
        one.redis.execute_command("ACL", "SETUSER", *user)
        one.url = server.url.replace("redis://", "redis://consumer:secret@")
        worker = one.start(f"outside:{name}", *RUN)
        assert worker.wait() == 2
        output = worker.err.strip().splitlines()[-1]
        # A server before Redis 7.2 names no command: then the kit lists all commands of the script.
        assert command in output.partition("refuses us: ")[2]


@pytest.mark.parametrize("name", ["Picky", "Ordered"])
def test_a_worker_whose_rights_are_revoked_reports_it_and_ends(tmp_path: Path, name: str) -> None:
    with running_redis() as server, running_bench(tmp_path, server.url) as one:
        (one.folder / "outside.py").write_text(PICKY)
        one.register(STREAM)
        one.add(STREAM, trades(1, 50))
        one.redis.execute_command(
            "ACL", "SETUSER", "consumer", "on", ">secret", *rights(name.lower())
        )
        one.url = server.url.replace("redis://", "redis://consumer:secret@")
        worker = one.start(f"outside:{name}", *RUN)
        one.until(lambda: one.redis.exists("consumers:status"))
        one.redis.execute_command("ACL", "SETUSER", "consumer", "-@all", "clearselectors")
        one.until(lambda: worker.process.poll() is not None)
        assert worker.wait() == 2
        assert "refuses us" in worker.err
        assert "Traceback" not in worker.err
