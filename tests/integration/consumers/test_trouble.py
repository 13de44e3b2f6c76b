"""Poison, slow, hanging and killing handlers, in both modes: what becomes of the entry, and of the
others."""

import json
import subprocess
from collections import Counter
from typing import Any

import pytest

from tests.integration.consumers.test_door import consumers
from tests.support.consumer_entries import START_US, Fields, balance_update, entry_id, trade
from tests.support.consumer_worker import Bench

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine

STREAM = "trade.SOL_USDC"

# Number 7 fails, kills, hangs or dawdles, as the key "how" says, until there is no such key.
PICKY = """
import asyncio, os, signal, time
import redis
from bridge.contract.events import Trade
from consumers import Consumer, Delivery, Results

client = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"], decode_responses=True)

def how(delivery):
    return client.get("how") if delivery.event.trade_id == 7 else None

class Picky(Consumer):
    name = "picky"
    streams = ("trade.*",)
    attempts = 3
    time_limit_s = 0.5

    def on_trade(self, delivery: Delivery[Trade], results: Results):
        match how(delivery):
            case "fail":
                client.incr("begun")
                raise ValueError("seven is not to my taste")
            case "kill":
                client.incr("begun")
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                client.incr("begun")
                time.sleep(600)
        results.hincrby("seen", str(delivery.event.trade_id), 1)

class Blocking(Picky):
    name = "blocking"
    poison = "block"

class Ordered(Picky):
    name = "ordered"
    mode = "ordered"
    poison = "set aside"

    def __init__(self, slow_s="0"):
        self.slow_s = float(slow_s)

    def on_trade(self, delivery: Delivery[Trade], results: Results):
        time.sleep(self.slow_s)
        super().on_trade(delivery, results)

class Refused(Picky):
    name = "refused"

    def on_trade(self, delivery: Delivery[Trade], results: Results):
        super().on_trade(delivery, results)
        if how(delivery) == "refused":
            results.hincrby("other", "n", 1)  # a key of another kind

class RefusedOrdered(Refused):
    name = "refused-ordered"
    mode = "ordered"
    poison = "set aside"

class NoJson(Ordered):
    name = "no-json"

    def on_trade(self, delivery, results):
        super().on_trade(delivery, results)
        if how(delivery) == "no json":
            self.state["who"] = object()

class Async(Consumer):
    name = "async"
    streams = ("trade.*",)
    attempts = 2
    time_limit_s = 0.3

    async def on_trade(self, delivery: Delivery[Trade], results: Results):
        if how(delivery) == "hang":
            await asyncio.sleep(600)
        if how(delivery) == "await what was cancelled":
            gone = asyncio.ensure_future(asyncio.sleep(600))
            gone.cancel()
            await gone
        results.hincrby("seen", str(delivery.event.trade_id), 1)

class AsyncOrdered(Async):
    name = "async-ordered"
    mode = "ordered"
    poison = "set aside"

class Private(Consumer):
    name = "private"
    streams = ("account.*",)
    attempts = 1

    def on_event(self, delivery):
        raise ValueError(f"no: {delivery.event.available}")
"""
RUN = ("--lease", "0.6")


def trades(first: int, last: int) -> dict[str, Fields]:
    return {last_id(n): trade(n, START_US + n * 1000) for n in range(first, last + 1)}


def last_id(number: int) -> str:
    return entry_id(START_US + number * 1000, number)


@pytest.fixture
def picky(bench: Bench) -> Bench:
    (bench.folder / "outside.py").write_text(PICKY)
    bench.register(STREAM)
    bench.add(STREAM, trades(1, 50))
    return bench


def seen(bench: Bench, group: str) -> Counter[int]:
    found: dict[str, str] = bench.redis.hgetall(f"consumers:{{{STREAM}}}:{group}:seen")  # type: ignore[assignment]
    return Counter({int(number): int(times) for number, times in found.items()})


def letters(bench: Bench, group: str, stream: str = STREAM) -> list[dict[str, str]]:
    return [fields for _, fields in bench.redis.xrange(f"consumers:{{{stream}}}:{group}:dead")]  # type: ignore[union-attr, misc]


def deadletters(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[str]:
    return consumers(bench.folder, "deadletters", *arguments, BRIDGE_REDIS__URL=bench.url)


ALL_BUT_SEVEN = Counter(n for n in range(1, 51) if n != 7)
BOTH_MODES = pytest.mark.parametrize(
    ("name", "group"), [("Picky", "picky"), ("Ordered", "ordered")]
)


@BOTH_MODES
def test_poison_becomes_a_dead_letter_and_can_be_sent_back(
    picky: Bench, name: str, group: str
) -> None:
    picky.redis.set("how", "fail")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    [letter] = letters(picky, group)
    assert (letter["stream"], letter["entry_id"]) == (STREAM, last_id(7))
    assert letter["error"] == "ValueError: seven is not to my taste"
    assert letter["attempts"] == "3"
    assert letter["at"].endswith("outside.py:22")
    assert letter["worker"] == worker.name
    assert json.loads(letter["fields"]) == trades(7, 7)[last_id(7)]
    assert worker.err.count("set_aside") == 1
    picky.until(lambda: picky.status(group, worker)["dead"] == 1)

    listed = deadletters(picky, "list")
    assert f"{STREAM} {last_id(7)} ×3 ValueError: seven is not to my taste" in listed.stdout
    letter_id = listed.stdout.split()[1]
    shown = json.loads(deadletters(picky, "show", group, letter_id).stdout)
    assert shown["fields"]["price"] == "98.96"

    picky.redis.xtrim(STREAM, maxlen=0)  # it needs the stream no more
    assert deadletters(picky, "retry", group, letter_id).returncode == 0  # still not mended
    picky.until(lambda: [one["attempts"] for one in letters(picky, group)] == ["4"])
    picky.redis.delete("how")
    assert deadletters(picky, "retry", group, "--all").stdout == f"1 sent back to {group}\n"
    picky.until(lambda: seen(picky, group) == Counter(range(1, 51)))
    assert letters(picky, group) == []
    assert picky.redis.xlen(f"consumers:{{{STREAM}}}:{group}:again") == 0


@BOTH_MODES
def test_an_entry_that_kills_its_worker_is_set_aside_and_takes_no_other_with_it(
    picky: Bench, name: str, group: str
) -> None:
    picky.redis.set("how", "kill")
    worker = picky.start(f"outside:{name}", *RUN)
    while not picky.caught_up(STREAM, group, last_id(50)):  # as a supervisor does
        if worker.process.poll() is not None:
            worker = picky.start(f"outside:{name}", *RUN)
            assert len(picky.workers) < 12
        worker.process.poll()
    assert seen(picky, group) == ALL_BUT_SEVEN
    [letter] = letters(picky, group)
    assert letter["entry_id"] == last_id(7)
    assert letter["error"].startswith("NotFinished: begun ")

    assert deadletters(picky, "retry", group, "--all").returncode == 0  # it kills once more
    worker.wait()
    assert " (sent back)" not in deadletters(picky, "list").stdout
    again = picky.start(f"outside:{name}", *RUN)
    picky.add(STREAM, trades(51, 60))
    picky.await_group(STREAM, group, last_id(60))
    picky.until(lambda: picky.status(group, again).get("handled") == 10)
    assert again.process.poll() is None
    [once_more] = letters(picky, group)
    assert int(once_more["attempts"]) == int(letter["attempts"]) + 1


def test_a_killer_behind_slow_entries_costs_no_more_workers(picky: Bench) -> None:
    picky.redis.set("how", "kill")
    picky.start("outside:Ordered", *RUN).wait()
    slow = ("--option", "slow_s=0.25")  # three of them are a second's work
    worker = picky.start("outside:Ordered", *RUN, *slow)
    while not letters(picky, "ordered"):
        if worker.process.poll() is not None:
            worker = picky.start("outside:Ordered", *RUN, *slow)
            assert len(picky.workers) < 12
    assert picky.redis.get("begun") == "4"  # in the first batch, and three times alone


def test_in_shared_mode_too_poison_may_be_tried_for_ever(picky: Bench) -> None:
    picky.redis.set("how", "fail")
    picky.start("outside:Blocking", *RUN)
    picky.until(lambda: int(picky.redis.get("begun") or 0) > 4)  # type: ignore[arg-type]
    assert letters(picky, "blocking") == []
    picky.redis.delete("how")
    picky.await_group(STREAM, "blocking", last_id(50))
    assert seen(picky, "blocking") == Counter(range(1, 51))


@BOTH_MODES
def test_where_no_dead_letter_can_be_written_the_entry_waits(
    picky: Bench, name: str, group: str
) -> None:
    dead = f"consumers:{{{STREAM}}}:{group}:dead"
    picky.redis.set("how", "fail")
    picky.redis.set(dead, "no stream")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.until(lambda: worker.err.count("a result key is a string") >= 2)
    assert worker.process.poll() is None
    picky.redis.delete(dead)
    picky.until(lambda: letters(picky, group))
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    assert letters(picky, group)[0]["error"] == "ValueError: seven is not to my taste"


def test_a_letter_that_was_sent_back_is_listed_while_nobody_has_it(picky: Bench) -> None:
    picky.redis.set("how", "fail")
    worker = picky.start("outside:Picky", *RUN)
    picky.until(lambda: letters(picky, "picky"))
    assert worker.stop() == 0
    assert deadletters(picky, "retry", "picky", "--all").returncode == 0
    assert deadletters(picky, "list").stdout.endswith(
        "ValueError: seven is not to my taste (sent back)\n"
    )


@pytest.mark.parametrize(
    ("name", "group"), [("Refused", "refused"), ("RefusedOrdered", "refused-ordered")]
)
def test_results_that_redis_refuses_are_a_failure_like_another(
    picky: Bench, name: str, group: str
) -> None:
    picky.redis.set("how", "refused")
    picky.redis.set(f"consumers:{{{STREAM}}}:{group}:other", "no hash")
    picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    [letter] = letters(picky, group)
    assert letter["error"].startswith("ResultsRefused: ")
    assert "WRONGTYPE" in letter["error"]

    assert deadletters(picky, "retry", group, "--all").returncode == 0
    picky.until(lambda: [one["attempts"] for one in letters(picky, group)] == ["4"])
    picky.until(lambda: letters(picky, group)[0]["error"].startswith("ResultsRefused: "))
    picky.redis.delete("how")
    assert deadletters(picky, "retry", group, "--all").returncode == 0
    picky.until(lambda: seen(picky, group) == Counter(range(1, 51)))
    assert letters(picky, group) == []


def test_a_state_that_is_no_json_is_a_failure_like_another(picky: Bench) -> None:
    picky.redis.set("how", "no json")
    picky.start("outside:NoJson", *RUN)
    picky.await_group(STREAM, "no-json", last_id(50))
    assert seen(picky, "no-json") == ALL_BUT_SEVEN
    [letter] = letters(picky, "no-json")
    assert letter["error"].startswith("TypeError: ")


def test_a_sync_handler_that_hangs_is_told_of_and_ends_its_worker(picky: Bench) -> None:
    picky.redis.set("how", "hang")
    worker = picky.start("outside:Picky", *RUN)
    assert worker.wait(30) == 1
    assert "handler_hangs" in worker.err
    assert "outside.py:28" in worker.err  # where it hangs
    assert last_id(7) in worker.err
    picky.redis.delete("how")
    picky.start("outside:Picky", *RUN)
    picky.await_group(STREAM, "picky", last_id(50))
    assert seen(picky, "picky") == Counter(range(1, 51))


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("hang", "TookTooLong: not done within its time limit of 0.3 s"),
        ("await what was cancelled", "CancelledError: "),
    ],
)
@pytest.mark.parametrize(("name", "group"), [("Async", "async"), ("AsyncOrdered", "async-ordered")])
def test_an_async_handler_that_is_cancelled_at_its_limit_or_within_has_failed(
    picky: Bench, name: str, group: str, how: str, error: str
) -> None:
    picky.redis.set("how", how)
    picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    [letter] = letters(picky, group)
    assert letter["error"] == error


def test_of_a_private_entry_nothing_is_told_in_error_and_log(picky: Bench) -> None:
    stream = "account.balanceUpdate"
    picky.register(stream)
    picky.add(stream, {"5-0": balance_update("USDC", "123456.789", "0")})
    worker = picky.start("outside:Private", *RUN)
    picky.await_group(stream, "private", "5-0")
    [letter] = letters(picky, "private", stream)
    assert letter["error"] == "ValueError"
    assert "123456.789" not in worker.err
    assert "123456.789" not in deadletters(picky, "list").stdout


def test_dead_letters_are_dropped_by_id_or_all(picky: Bench) -> None:
    picky.redis.set("how", "fail")
    picky.start("outside:Picky", *RUN)
    picky.until(lambda: letters(picky, "picky"))
    found: Any = json.loads(deadletters(picky, "list", "--json").stdout)
    assert deadletters(picky, "drop", "picky").returncode == 2  # neither IDs nor --all
    assert deadletters(picky, "drop", "picky", "1-1").returncode == 1
    assert deadletters(picky, "drop", "picky", found["letter"]).stdout == "1 dropped\n"
    assert letters(picky, "picky") == []
    assert "no dead letters" in deadletters(picky, "list").stderr
