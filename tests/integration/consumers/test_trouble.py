"""Handlers that fail, hang, are slow or kill their worker: the effect on all entries."""

import json
import signal
from collections import Counter
from typing import Any

import pytest

from tests.support.consumer_commands import run_here
from tests.support.consumer_entries import START_US, balance_update, trade
from tests.support.consumer_worker import Bench
from tests.support.picky import (
    ALL_BUT_SEVEN,
    BOTH_MODES,
    RUN,
    STREAM,
    dead_letters,
    deadletters,
    last_id,
    seen,
    trades,
)

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine


@pytest.mark.parametrize(
    "command", [["list", "--group", "pick"], ["show", "pick", "5-1"], ["retry", "pick", "--all"]]
)
def test_dead_letters_of_an_unknown_group_are_refused_with_the_existing_groups(
    bench: Bench, command: list[str]
) -> None:
    bench.redis.hset("consumers:groups", "picky", "{}")
    done = deadletters(bench, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: there is no group 'pick', there are picky; did you mean picky?\n"
    )


def test_dead_letters_of_an_unregistered_group_are_shown_and_dropped(
    picky: Bench,
) -> None:
    picky.redis.hset("consumers:groups", "other", "{}")
    letter = {"stream": STREAM, "entry_id": last_id(7), "attempts": "3", "error": "x", "at": ""}
    letter |= {"worker": "w", "fields": "{}"}
    picky.redis.xadd(f"consumers:{{{STREAM}}}:gone:dead", letter, id="5-1")  # type: ignore[arg-type]
    assert last_id(7) in deadletters(picky, "list", "--group", "gone").stdout
    assert deadletters(picky, "show", "gone", "5-1").returncode == 0
    assert deadletters(picky, "drop", "gone", "--all").returncode == 0
    assert dead_letters(picky, "gone") == []


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_a_dead_letter_whose_id_two_streams_have_is_changed_in_the_named_one_alone(
    picky: Bench, command: str
) -> None:
    picky.register("trade.OTHER")
    letter = {"entry_id": last_id(7), "attempts": "3", "error": "x", "fields": "{}"}
    keys = [f"consumers:{{{stream}}}:picky:dead" for stream in (STREAM, "trade.OTHER")]
    for key in keys:
        picky.redis.xadd(key, letter, id="5-1")  # type: ignore[arg-type]
    done = deadletters(picky, command, "picky", "5-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: 5-1 is a dead letter of trade.OTHER and of trade.SOL_USDC: name one of them with "
        "--streams\n"
    )
    assert [picky.redis.xlen(key) for key in keys] == [1, 1]
    assert deadletters(picky, command, "picky", "5-1", "--streams", STREAM).returncode == 0
    assert [picky.redis.xlen(key) for key in keys] == [0, 1]


@BOTH_MODES
def test_an_entry_that_always_fails_becomes_a_dead_letter_and_can_be_sent_back(
    picky: Bench, name: str, group: str
) -> None:
    picky.redis.set("how", "fail")
    worker = picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    [letter] = dead_letters(picky, group)
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

    picky.redis.xtrim(STREAM, maxlen=0)  # the dead letter does not need the stream
    assert deadletters(picky, "retry", group, letter_id).returncode == 0  # the handler still fails
    # The letter reads "NotFinished" once it is taken; "ValueError" once the handler has failed.
    picky.until(
        lambda: (
            [(one["attempts"], one["error"].split(":")[0]) for one in dead_letters(picky, group)]
            == [("4", "ValueError")]
        )
    )
    picky.redis.delete("how")
    assert deadletters(picky, "retry", group, "--all").stdout == f"1 sent back to {group}\n"
    picky.until(lambda: seen(picky, group) == Counter(range(1, 51)))
    assert dead_letters(picky, group) == []
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
    [letter] = dead_letters(picky, group)
    assert letter["entry_id"] == last_id(7)
    assert letter["error"].startswith("NotFinished: begun ")

    # the entry kills the worker again
    assert deadletters(picky, "retry", group, "--all").returncode == 0
    worker.wait()
    assert " (sent back)" not in deadletters(picky, "list").stdout
    again = picky.start(f"outside:{name}", *RUN)
    picky.add(STREAM, trades(51, 60))
    picky.await_group(STREAM, group, last_id(60))
    picky.until(lambda: picky.status(group, again).get("handled") == 10)
    assert again.process.poll() is None
    [once_more] = dead_letters(picky, group)
    assert int(once_more["attempts"]) == int(letter["attempts"]) + 1


def test_entry_that_kills_after_slow_entries_kills_no_more_workers(picky: Bench) -> None:
    picky.redis.set("how", "kill")
    picky.start("outside:Ordered", *RUN).wait()
    slow = ("--option", "slow_s=0.25")  # each entry takes 0.25 s
    worker = picky.start("outside:Ordered", *RUN, *slow)
    while not dead_letters(picky, "ordered"):
        if worker.process.poll() is not None:
            worker = picky.start("outside:Ordered", *RUN, *slow)
            assert len(picky.workers) < 12
    assert picky.redis.get("begun") == "4"  # in the first batch, and three times alone


def test_on_failure_block_tries_a_shared_entry_for_ever(picky: Bench) -> None:
    picky.redis.set("how", "fail")
    picky.start("outside:Blocking", *RUN)
    picky.until(lambda: int(picky.redis.get("begun") or 0) > 4)  # type: ignore[arg-type]
    assert dead_letters(picky, "blocking") == []
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
    picky.until(lambda: dead_letters(picky, group))
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    assert dead_letters(picky, group)[0]["error"] == "ValueError: seven is not to my taste"


def test_a_dead_letter_sent_back_is_listed_until_a_worker_has_taken_it(picky: Bench) -> None:
    picky.redis.set("how", "fail")
    worker = picky.start("outside:Picky", *RUN)
    picky.until(lambda: dead_letters(picky, "picky"))
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
    picky.start(f"outside:{name}", "--lease", "300")  # one page per lease would take too long
    picky.until(lambda: picky.redis.xlen(f"consumers:{{{STREAM}}}:{group}:again") == 0)
    picky.until(lambda: seen(picky, group) == Counter([*range(1, 51), *range(1001, 2307)]))
    assert dead_letters(picky, group) == []


@pytest.mark.parametrize(
    ("name", "group"), [("Refused", "refused"), ("RefusedOrdered", "refused-ordered")]
)
def test_results_that_redis_refuses_fail_the_entry(picky: Bench, name: str, group: str) -> None:
    picky.redis.set("how", "refused")
    picky.redis.set(f"consumers:{{{STREAM}}}:{group}:other", "no hash")
    picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    [letter] = dead_letters(picky, group)
    assert letter["error"].startswith("ResultsRefused: ")
    assert "WRONGTYPE" in letter["error"]

    assert deadletters(picky, "retry", group, "--all").returncode == 0
    picky.until(lambda: [one["attempts"] for one in dead_letters(picky, group)] == ["4"])
    picky.until(lambda: dead_letters(picky, group)[0]["error"].startswith("ResultsRefused: "))
    picky.redis.delete("how")
    assert deadletters(picky, "retry", group, "--all").returncode == 0
    picky.until(lambda: seen(picky, group) == Counter(range(1, 51)))
    assert dead_letters(picky, group) == []


def test_state_that_is_not_json_fails_the_entry(picky: Bench) -> None:
    picky.redis.set("how", "no json")
    picky.start("outside:NoJson", *RUN)
    picky.await_group(STREAM, "no-json", last_id(50))
    assert seen(picky, "no-json") == ALL_BUT_SEVEN
    [letter] = dead_letters(picky, "no-json")
    assert letter["error"].startswith("TypeError: ")


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("surrogate in a result", "UnicodeEncodeError: 'utf-8' codec can't encode character"),
        ("surrogate in a part", "UnicodeEncodeError: 'utf-8' codec can't encode character"),
        ("surrogate in the error", r"ValueError: \ud83d"),
        ("error without text", "Textless: (its text is not available: KeyError)"),
    ],
)
@pytest.mark.parametrize(("name", "group"), [("Picky", "picky"), ("Ordered", "ordered")])
def test_failure_with_an_unencodable_text_fails_its_entry(
    picky: Bench, name: str, group: str, how: str, error: str
) -> None:
    picky.redis.set("how", how)
    worker = picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    [letter] = dead_letters(picky, group)
    assert letter["error"].startswith(error)
    assert letter["attempts"] == "3"
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
def test_async_handler_cancelled_at_or_before_its_limit_fails(
    picky: Bench, name: str, group: str, how: str, error: str
) -> None:
    picky.redis.set("how", how)
    picky.start(f"outside:{name}", *RUN)
    picky.await_group(STREAM, group, last_id(50))
    assert seen(picky, group) == ALL_BUT_SEVEN
    [letter] = dead_letters(picky, group)
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


def test_handler_that_calls_sys_exit_ends_its_worker_with_one_error(picky: Bench) -> None:
    worker = picky.start("outside:Leaves", *RUN)
    assert worker.wait(60) == 3
    assert worker.err.endswith(
        "error: leaves: code of the consumer has called sys.exit: raise StopWorker to end a worker "
        "cleanly\n"
    )
    assert "Traceback" not in worker.err


def test_consumer_of_another_mode_is_refused_in_an_existing_group(picky: Bench) -> None:
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
    assert [(one["entry_id"], one["attempts"]) for one in dead_letters(picky, group)] == [
        (last_id(7), "2")
    ]
    assert "CancelledWithin: code of the consumer has cancelled the task of its call" in worker.err
    assert seen(picky, group) == ALL_BUT_SEVEN

    # it becomes a dead letter again
    assert deadletters(picky, "retry", group, "--all").returncode == 0
    picky.until(lambda: [one["attempts"] for one in dead_letters(picky, group)] == ["3"])
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
def test_entry_that_cannot_be_decoded_is_counted_apart_shown_and_set_aside_where_requested(
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
    found = dead_letters(picky, group)
    assert [one["entry_id"] for one in found] == ([last_id(51)] if is_set_aside else [])
    if is_set_aside:  # sent back, it becomes a dead letter again
        assert found[0]["error"].startswith("BadEntry: ")
        assert deadletters(picky, "retry", group, "--all").returncode == 0
        picky.until(lambda: [one["attempts"] for one in dead_letters(picky, group)] == ["2"])


def test_a_private_entry_that_fails_shows_no_content_in_log_and_error(picky: Bench) -> None:
    stream = "account.balanceUpdate"
    picky.register(stream)
    picky.add(stream, {"5-0": balance_update("USDC", "123456.789", "0")})
    worker = picky.start("outside:Private", *RUN)
    picky.await_group(stream, "private", "5-0")
    [letter] = dead_letters(picky, "private", stream)
    assert letter["error"] == "ValueError"
    assert "123456.789" not in worker.err
    assert "123456.789" not in deadletters(picky, "list").stdout


def test_dead_letters_are_dropped_by_id_or_all(picky: Bench) -> None:
    picky.redis.set("how", "fail")
    picky.start("outside:Picky", *RUN)
    picky.until(lambda: dead_letters(picky, "picky"))
    found: Any = json.loads(deadletters(picky, "list", "--json").stdout)
    assert deadletters(picky, "drop", "picky").returncode == 2  # neither IDs nor --all
    assert deadletters(picky, "drop", "picky", "1-1").returncode == 1
    assert deadletters(picky, "drop", "picky", found["letter"]).stdout == "1 dropped\n"
    assert dead_letters(picky, "picky") == []
    assert "no dead letters" in deadletters(picky, "list").stderr


def test_texts_of_dead_letters_and_groups_are_escaped(bench: Bench) -> None:
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
