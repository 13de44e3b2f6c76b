"""Poison, slow, hanging and killing handlers, in both modes: what becomes of the entry, and of the
others."""

import json
import signal
import subprocess
from collections import Counter
from typing import Any

import pytest

from tests.support.consumer_commands import run_here
from tests.support.consumer_entries import START_US, Fields, balance_update, entry_id, trade
from tests.support.consumer_worker import Bench

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine

STREAM = "trade.SOL_USDC"

# Number 7 fails, kills, hangs or dawdles, as the key "how" says, until there is no such key.
PICKY = """
import asyncio, os, signal, sys, time
import redis
from bridge.contract.events import Trade
from consumers import Consumer, Delivery, Results, every

client = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"], decode_responses=True)

def how(delivery):
    return client.get("how") if delivery.event.trade_id == 7 else None

class Textless(Exception):
    def __str__(self):
        raise KeyError("text")

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
            case "surrogate in a result":
                results.set("text", "\\ud83d")
            case "surrogate in a part":
                results.set("\\ud83d", "text")
            case "surrogate in the error":
                raise ValueError("\\ud83d")
            case "error without text":
                raise Textless
            case "kill":
                client.incr("begun")
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                client.incr("begun")
                time.sleep(600)
        results.hincrby("seen", str(delivery.event.trade_id), 1)

class Blocking(Picky):
    name = "blocking"
    on_failure = "block"

class Ordered(Picky):
    name = "ordered"
    mode = "ordered"
    on_failure = "dead_letter"

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
    on_failure = "dead_letter"

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
        while how(delivery) == "catch its cancellation":
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                client.incr("cancelled")
        results.hincrby("seen", str(delivery.event.trade_id), 1)

class AsyncOrdered(Async):
    name = "async-ordered"
    mode = "ordered"
    on_failure = "dead_letter"

class OrderedAtOnce(AsyncOrdered):
    name = "ordered-at-once"
    concurrency = 3

    async def on_trade(self, delivery: Delivery[Trade], results: Results):
        if how(delivery) == "cancel itself":
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        await super().on_trade(delivery, results)

class Aside(Async):
    name = "aside"
    on_undecodable = "dead_letter"

class AsideOrdered(AsyncOrdered):
    name = "aside-ordered"
    on_undecodable = "dead_letter"

class Joined(Picky):
    name = "joined"
    mode = "joined"
    on_failure = "block"

class Leaves(Picky):
    name = "leaves"

    def on_trade(self, delivery, results):
        sys.exit(3)

class Timed(Picky):
    name = "timed"

    @every("1s")
    def note(self, tick, results):
        results.set("tick", str(tick.at_us))

class TimedOrdered(Timed):
    name = "timed-ordered"
    mode = "ordered"
    on_failure = "dead_letter"

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
    return run_here(bench.folder, bench.url, "deadletters", *arguments)


@pytest.mark.parametrize(
    "command", [["list", "--group", "pick"], ["show", "pick", "5-1"], ["retry", "pick", "--all"]]
)
def test_dead_letters_of_a_group_that_is_not_there_are_refused_with_those_that_are(
    bench: Bench, command: list[str]
) -> None:
    bench.redis.hset("consumers:groups", "picky", "{}")
    said = deadletters(bench, *command)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == (
        "error: there is no group 'pick', there are picky; did you mean picky?\n"
    )


def test_dead_letters_of_a_group_that_is_registered_no_more_are_shown_and_dropped(
    picky: Bench,
) -> None:
    picky.redis.hset("consumers:groups", "other", "{}")
    letter = {"stream": STREAM, "entry_id": last_id(7), "attempts": "3", "error": "x", "at": ""}
    letter |= {"worker": "w", "fields": "{}"}
    picky.redis.xadd(f"consumers:{{{STREAM}}}:gone:dead", letter, id="5-1")  # type: ignore[arg-type]
    assert last_id(7) in deadletters(picky, "list", "--group", "gone").stdout
    assert deadletters(picky, "show", "gone", "5-1").returncode == 0
    assert deadletters(picky, "drop", "gone", "--all").returncode == 0
    assert letters(picky, "gone") == []


ALL_BUT_SEVEN = Counter(n for n in range(1, 51) if n != 7)
BOTH_MODES = pytest.mark.parametrize(
    ("name", "group"), [("Picky", "picky"), ("Ordered", "ordered")]
)


@BOTH_MODES
def test_an_entry_that_always_fails_becomes_a_dead_letter_and_can_be_sent_back(
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
    assert letter["at"].endswith("outside.py:26")
    assert letter["worker"] == worker.name
    assert json.loads(letter["fields"]) == trades(7, 7)[last_id(7)]
    assert worker.err.count('"dead_letter"') == 1
    picky.until(lambda: picky.status(group, worker)["dead"] == 1)

    listed = deadletters(picky, "list")
    assert f"{STREAM} {last_id(7)} ×3 ValueError: seven is not to my taste" in listed.stdout
    letter_id = listed.stdout.split()[1]
    shown = json.loads(deadletters(picky, "show", group, letter_id).stdout)
    assert shown["fields"]["price"] == "98.96"

    picky.redis.xtrim(STREAM, maxlen=0)  # it needs the stream no more
    assert deadletters(picky, "retry", group, letter_id).returncode == 0  # still not recovered
    # It is dead from the moment it is taken, as "NotFinished": the handler has failed after that.
    picky.until(
        lambda: (
            [(one["attempts"], one["error"].split(":")[0]) for one in letters(picky, group)]
            == [("4", "ValueError")]
        )
    )
    picky.redis.delete("how")
    assert deadletters(picky, "retry", group, "--all").stdout == f"1 sent back to {group}\n"
    picky.until(lambda: seen(picky, group) == Counter(range(1, 51)))
    assert letters(picky, group) == []
    assert picky.redis.xlen(f"consumers:{{{STREAM}}}:{group}:again") == 0


@BOTH_MODES
def test_an_entry_that_kills_its_worker_becomes_a_dead_letter_alone(
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


def test_an_entry_that_kills_behind_slow_ones_costs_no_more_workers(picky: Bench) -> None:
    picky.redis.set("how", "kill")
    picky.start("outside:Ordered", *RUN).wait()
    slow = ("--option", "slow_s=0.25")  # three of them are a second's work
    worker = picky.start("outside:Ordered", *RUN, *slow)
    while not letters(picky, "ordered"):
        if worker.process.poll() is not None:
            worker = picky.start("outside:Ordered", *RUN, *slow)
            assert len(picky.workers) < 12
    assert picky.redis.get("begun") == "4"  # in the first batch, and three times alone


def test_on_failure_block_tries_a_shared_entry_for_ever(picky: Bench) -> None:
    picky.redis.set("how", "fail")
    picky.start("outside:Blocking", *RUN)
    picky.until(lambda: int(picky.redis.get("begun") or 0) > 4)  # type: ignore[arg-type]
    assert letters(picky, "blocking") == []
    picky.redis.delete("how")
    picky.await_group(STREAM, "blocking", last_id(50))
    assert seen(picky, "blocking") == Counter(range(1, 51))


@BOTH_MODES
def test_an_entry_stays_pending_while_its_dead_letter_cannot_be_written(
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


def test_a_dead_letter_sent_back_is_listed_until_a_worker_has_taken_it(picky: Bench) -> None:
    picky.redis.set("how", "fail")
    worker = picky.start("outside:Picky", *RUN)
    picky.until(lambda: letters(picky, "picky"))
    assert worker.stop() == 0
    assert deadletters(picky, "retry", "picky", "--all").returncode == 0
    assert deadletters(picky, "list").stdout.endswith(
        "ValueError: seven is not to my taste (sent back)\n"
    )


@BOTH_MODES
def test_dead_letters_sent_back_are_all_listed_dropped_and_handled_at_once(
    picky: Bench, name: str, group: str
) -> None:
    picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    picky.workers[0].stop()

    def leave_letters() -> None:
        for number in range(1001, 2307):
            letter = {
                "stream": STREAM, "entry_id": last_id(number), "attempts": "3", "error": "E: no",
                "at": "", "worker": "w", "fields": json.dumps(trade(number, START_US)),
            }  # fmt: skip
            picky.redis.xadd(f"consumers:{{{STREAM}}}:{group}:dead", letter)  # type: ignore[arg-type]

    leave_letters()
    assert deadletters(picky, "retry", group, "--all").stdout == f"1306 sent back to {group}\n"
    listed = deadletters(picky, "list").stdout.splitlines()
    assert len([line for line in listed if line.endswith("(sent back)")]) == 1306
    one = listed[0].split()[1]
    assert deadletters(picky, "drop", group, one).stdout == "1 dropped\n"
    assert deadletters(picky, "drop", group, "--all").stdout == "1305 dropped\n"

    leave_letters()
    assert deadletters(picky, "retry", group, "--all").returncode == 0
    picky.start(f"outside:{name}", "--lease", "300")  # a page each lease would take too long
    picky.until(lambda: picky.redis.xlen(f"consumers:{{{STREAM}}}:{group}:again") == 0)
    picky.until(lambda: seen(picky, group) == Counter([*range(1, 51), *range(1001, 2307)]))
    assert letters(picky, group) == []


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


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("surrogate in a result", "UnicodeEncodeError: 'utf-8' codec can't encode character"),
        ("surrogate in a part", "UnicodeEncodeError: 'utf-8' codec can't encode character"),
        ("surrogate in the error", r"ValueError: \ud83d"),
        ("error without text", "Textless: (its text cannot be had: KeyError)"),
    ],
)
@pytest.mark.parametrize(("name", "group"), [("Picky", "picky"), ("Ordered", "ordered")])
def test_failure_that_cannot_be_sent_as_it_is_is_a_failure_of_its_entry(
    picky: Bench, name: str, group: str, how: str, error: str
) -> None:
    picky.redis.set("how", how)
    worker = picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    [letter] = letters(picky, group)
    assert letter["error"].startswith(error)
    assert letter["attempts"] == "3"
    assert worker.stop() == 0


@BOTH_MODES
def test_what_another_program_wrote_beside_a_stream_ends_no_worker(
    picky: Bench, name: str, group: str
) -> None:
    beside = f"consumers:{{{STREAM}}}:{group}"
    for _ in range(101):  # more than are looked at together
        picky.redis.xadd(f"{beside}:again", {"x": "y"})
    picky.redis.xadd(f"{beside}:dead", {"x": "y"})
    picky.register("trade.BAD_USDC", "trade.ODD_USDC")
    picky.redis.hset(f"consumers:{{trade.BAD_USDC}}:{group}:position", "id", "far along")
    picky.redis.hset(f"consumers:{{trade.ODD_USDC}}:{group}:state", "sum", "{")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == Counter(range(1, 51))
    picky.until(lambda: picky.redis.xlen(f"{beside}:again") == 0)
    listed = deadletters(picky, "list", "--json")
    assert (listed.returncode, json.loads(listed.stdout)["attempts"]) == (0, 0)
    assert run_here(picky.folder, picky.url, "status", "--json").returncode == 0
    assert worker.stop() == 0


@pytest.mark.parametrize("part", ["again", "lease", "position", "state", "settled", "ticks"])
@pytest.mark.parametrize(("name", "group"), [("Picky", "picky"), ("Ordered", "ordered")])
def test_a_key_of_another_kind_beside_one_stream_holds_up_no_other(
    picky: Bench, name: str, group: str, part: str
) -> None:
    picky.register("trade.BAD_USDC")
    picky.add("trade.BAD_USDC", {"1-0": {"type": "none"}})
    picky.redis.rpush(f"consumers:{{trade.BAD_USDC}}:{group}:{part}", "x")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == Counter(range(1, 51))
    assert "group_gone" not in worker.err
    assert "redis_away" not in worker.err
    assert worker.stop() == 0


@pytest.mark.parametrize("place", ["the group", "what is settled", "position", "joined position"])
def test_a_place_in_the_far_future_is_told_and_read_once_it_is_set_back(
    picky: Bench, place: str
) -> None:
    stream, to_come = "trade.BAD_USDC", "99999999999999-0"
    picky.register(stream)
    picky.add(stream, trades(1, 50))
    name = {"position": "Ordered", "joined position": "Joined"}.get(place, "Picky")
    part = "settled" if name == "Picky" else "position"
    key = f"consumers:{{{stream}}}:{name.lower()}:{part}"
    if place == "the group":
        picky.redis.xgroup_create(stream, "picky", to_come)
    else:
        picky.redis.hset(key, "id", to_come)

    worker = picky.start(f"outside:{name}", *RUN)

    picky.until(lambda: "stream_unusable" in worker.err)
    [told] = [line for line in worker.err.splitlines() if "stream_unusable" in line]
    assert f"nothing is read behind {to_come}, a time to come" in told
    if name != "Joined":  # its streams are of one unit
        picky.await_group(STREAM, name.lower(), last_id(50))
    if place == "the group":
        assert "XGROUP SETID" in told
        picky.redis.xgroup_setid(stream, "picky", "0-0")
    else:
        assert f"set the field id of {key} back" in told
        picky.redis.hset(key, "id", "0-0")
    for each in (STREAM, stream):
        picky.await_group(each, name.lower(), last_id(50))
    assert worker.err.count("stream_unusable") == 1
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("name", "where"),
    [("Timed", "{timers}:timed"), ("TimedOrdered", f"{{{STREAM}}}:timed-ordered")],
)
def test_a_timer_that_was_due_in_the_far_future_is_called_all_the_same(
    picky: Bench, name: str, where: str
) -> None:
    picky.redis.hset(f"consumers:{where}:ticks", "note", "99999999999999")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.until(lambda: picky.redis.exists(f"consumers:{where}:tick"))
    assert worker.stop() == 0


@pytest.mark.parametrize("part", ["lease", "position", "ticks"])
def test_a_key_of_another_kind_where_timers_are_kept_holds_up_no_entry(
    picky: Bench, part: str
) -> None:
    picky.redis.rpush(f"consumers:{{timers}}:timed:{part}", "x")
    worker = picky.start("outside:Timed", *RUN)
    picky.await_group(STREAM, "timed", last_id(50))
    picky.until(lambda: "stream_unusable" in worker.err)
    assert "group_gone" not in worker.err
    picky.redis.delete(f"consumers:{{timers}}:timed:{part}")
    picky.until(lambda: picky.redis.exists("consumers:{timers}:timed:tick"))
    assert worker.err.count("stream_unusable") == 1
    assert worker.stop() == 0


def test_a_sync_handler_that_hangs_is_logged_and_ends_its_worker(picky: Bench) -> None:
    picky.redis.set("how", "hang")
    worker = picky.start("outside:Picky", *RUN)
    assert worker.wait(60) == 1
    assert "handler_hangs" in worker.err
    assert "outside.py:40" in worker.err  # where it hangs
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


@pytest.mark.parametrize(("name", "group"), [("Async", "async"), ("AsyncOrdered", "async-ordered")])
def test_async_handler_that_catches_its_cancellation_is_logged_and_ends_its_worker(
    picky: Bench, name: str, group: str
) -> None:
    picky.redis.set("how", "catch its cancellation")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.until(lambda: picky.redis.exists("cancelled"))
    worker.signal(signal.SIGTERM)
    assert worker.wait(60) == 1
    assert "handler_hangs" in worker.err
    assert "worker_gives_up" in worker.err
    assert "outside.py:95" in worker.err  # where it hangs
    assert last_id(7) in worker.err
    picky.redis.delete("how")
    picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == Counter(range(1, 51))


def test_a_handler_that_calls_sys_exit_ends_its_worker_with_a_sentence(picky: Bench) -> None:
    worker = picky.start("outside:Leaves", *RUN)
    assert worker.wait(60) == 3
    assert worker.err.endswith(
        "error: leaves: code of the consumer has called sys.exit: raise StopWorker to end a worker "
        "cleanly\n"
    )
    assert "Traceback" not in worker.err


def test_a_consumer_of_another_mode_is_refused_in_a_group_that_is_there(picky: Bench) -> None:
    picky.start("outside:Picky", *RUN)
    picky.await_group(STREAM, "picky", last_id(50))
    other = picky.start("outside:Ordered", "--group", "picky", *RUN)
    assert other.wait(60) == 2
    assert other.err.endswith(
        "error: group picky is shared, as consumers:groups says, and this consumer is ordered: "
        "give it another name, or another --group\n"
    )
    assert seen(picky, "picky") == Counter(range(1, 51))
    again = picky.start("outside:Picky", *RUN)
    picky.until(lambda: "group_goes_on" in again.err)


def test_a_call_that_cancels_its_own_task_has_failed_and_ends_no_worker(picky: Bench) -> None:
    group = "ordered-at-once"
    picky.redis.set("how", "cancel itself")
    worker = picky.start("outside:OrderedAtOnce", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert [(one["entry_id"], one["attempts"]) for one in letters(picky, group)] == [
        (last_id(7), "2")
    ]
    assert "CancelledWithin: code of the consumer has cancelled the task of its call" in worker.err
    assert seen(picky, group) == ALL_BUT_SEVEN

    assert deadletters(picky, "retry", group, "--all").returncode == 0  # it is dead again
    picky.until(lambda: [one["attempts"] for one in letters(picky, group)] == ["3"])
    picky.redis.delete("how")
    picky.until(lambda: deadletters(picky, "retry", group, "--all").returncode == 0)
    picky.until(lambda: seen(picky, group) == Counter(range(1, 51)))
    assert "Traceback" not in worker.err
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("name", "group", "is_set_aside"),
    [
        ("Async", "async", False),
        ("AsyncOrdered", "async-ordered", False),
        ("Aside", "aside", True),
        ("AsideOrdered", "aside-ordered", True),
    ],
)
def test_entry_that_cannot_be_decoded_is_counted_apart_shown_and_set_aside_where_asked(
    picky: Bench, name: str, group: str, *, is_set_aside: bool
) -> None:
    picky.add(STREAM, {last_id(51): trade(51, START_US) | {"price": "x"}, **trades(52, 60)})
    worker = picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(60))
    assert seen(picky, group) == Counter({*range(1, 51), *range(52, 61)})
    picky.until(lambda: picky.status(group, worker)["undecodable"] == 1)
    assert picky.status(group, worker)["handled"] == 59
    shown = run_here(picky.folder, picky.url, "status").stdout
    assert "not decoded 1" in shown
    found = letters(picky, group)
    assert [one["entry_id"] for one in found] == ([last_id(51)] if is_set_aside else [])
    if is_set_aside:  # sent back, it stays one
        assert found[0]["error"].startswith("BadEntry: ")
        assert deadletters(picky, "retry", group, "--all").returncode == 0
        picky.until(lambda: [one["attempts"] for one in letters(picky, group)] == ["2"])


def test_a_private_entry_that_fails_shows_no_content_in_log_and_error(picky: Bench) -> None:
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


def test_texts_of_dead_letters_and_groups_do_nothing_to_a_terminal(bench: Bench) -> None:
    hostile = "[red]X\r\nforged\x1b]0;X\x07"
    bench.register(STREAM)
    bench.redis.hset("consumers:groups", hostile, json.dumps({"mode": hostile, "streams": []}))
    letter = {"stream": STREAM, "entry_id": hostile, "attempts": "3", "error": hostile}
    letter |= {"at": hostile, "worker": hostile, "fields": json.dumps({"symbol": hostile})}
    bench.redis.xadd(f"consumers:{{{STREAM}}}:{hostile}:dead", letter)  # type: ignore[arg-type]
    bench.redis.hset(f"consumers:{{{STREAM}}}:{hostile}:position", "id", hostile)
    for command in (["deadletters", "list"], ["status"]):
        done = run_here(bench.folder, bench.url, *command)
        assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n"))
        assert r"[red]X\r\nforged" in done.stdout


def test_a_name_in_the_registry_that_is_no_stream_is_told_once_and_passed_over(
    bench: Bench,
) -> None:
    hostile = "a/../../T"
    bench.register(hostile, STREAM)
    for stream in (hostile, STREAM):
        bench.add(stream, trades(1, 5))
    worker = bench.start("archive", "--option", "rows=1")
    bench.until(lambda: list(bench.folder.glob(f"archive/stream={STREAM}/*/*.parquet")))
    bench.until(lambda: bench.status("archive", worker).get("handled") == 5)
    assert not (bench.folder / "T").exists()
    assert bench.redis.keys("*T}*") == []
    assert worker.err.count("stream_name_refused") == 1
