"""The rights that docs/operations.md asks for a consumer are enough; without them it says so."""

import re
from pathlib import Path

import pytest

from tests.integration.consumers.test_door import consumers
from tests.integration.consumers.test_trouble import (
    ALL_BUT_SEVEN,
    PICKY,
    RUN,
    STREAM,
    last_id,
    letters,
    seen,
    trades,
)
from tests.support.consumer_worker import ROOT
from tests.support.consumer_worker import bench as running_bench
from tests.support.redis_server import running_redis

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine


def rights() -> list[str]:
    """The rule of the page, without its name and password."""
    page = (ROOT / "docs/operations.md").read_text()
    found = re.search(r"ACL SETUSER consumer on >PASSWORD (.*?)```", page, re.DOTALL)
    assert found
    return found[1].split()


@pytest.mark.parametrize(("name", "group"), [("Picky", "picky"), ("Ordered", "ordered")])
def test_a_consumer_works_with_these_rights(tmp_path: Path, name: str, group: str) -> None:
    with running_redis() as server, running_bench(tmp_path, server.url) as one:
        (one.folder / "outside.py").write_text(PICKY)
        one.register(STREAM)
        one.add(STREAM, trades(1, 50))
        one.redis.set("how", "fail")
        one.redis.execute_command(
            "ACL", "SETUSER", "consumer", "on", ">secret", *rights(), "+incr"
        )  # +incr: the test's own handler
        one.url = server.url.replace("redis://", "redis://consumer:secret@")
        worker = one.start(f"outside:{name}", *RUN)
        one.until(lambda: letters(one, group))
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


@pytest.mark.parametrize("name", ["Picky", "Ordered"])
def test_a_worker_whose_rights_are_taken_away_says_so_and_ends(tmp_path: Path, name: str) -> None:
    with running_redis() as server, running_bench(tmp_path, server.url) as one:
        (one.folder / "outside.py").write_text(PICKY)
        one.register(STREAM)
        one.add(STREAM, trades(1, 50))
        one.redis.execute_command("ACL", "SETUSER", "consumer", "on", ">secret", *rights())
        one.url = server.url.replace("redis://", "redis://consumer:secret@")
        worker = one.start(f"outside:{name}", *RUN)
        one.until(lambda: one.redis.exists("consumers:status"))
        one.redis.execute_command("ACL", "SETUSER", "consumer", "-@all")
        one.until(lambda: worker.process.poll() is not None)
        assert worker.wait() == 2
        assert "refuses us" in worker.err
        assert "Traceback" not in worker.err
