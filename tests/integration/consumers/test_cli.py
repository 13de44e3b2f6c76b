"""The command line: messages, exit codes, pipes and signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from bridge import __version__
from tests.support.consumer_commands import consumers
from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import ROOT, Bench
from tests.support.consumer_worker import bench as running_bench
from tests.support.process_pages import ProcessPages
from tests.support.redis_server import RedisServer, free_port, running_redis

STREAM = "trade.SOL_USDC"


def trades(first: int, last: int) -> dict[str, Fields]:
    return {
        entry_id(START_US + n * 1000, n): trade(n, START_US + n * 1000)
        for n in range(first, last + 1)
    }


def test_list_names_the_samples_their_streams_and_options(tmp_path: Path) -> None:
    listed = consumers(tmp_path, "list")
    assert listed.returncode == 0
    for word in ("tail", "candles", "book", "orders", "trade.*", "--option intervals=1m"):
        assert word in listed.stdout


def test_run_help_names_every_option(tmp_path: Path) -> None:
    shown = consumers(tmp_path, "run", "--help")
    assert shown.returncode == 0
    for word in ("--group", "--name", "--streams", "--from", "--option", "MyConsumer", "Ctrl-C"):
        assert word in shown.stdout


def test_help_shows_the_command_as_it_was_called(tmp_path: Path) -> None:
    script = tmp_path / "backpack-consumers"
    script.write_text("from consumers.__main__ import main\nmain()\n")
    shown = subprocess.run(
        [sys.executable, str(script), "deadletters", "retry", "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert "Usage: backpack-consumers deadletters retry [OPTIONS]" in shown.stdout
    assert "backpack-consumers deadletters retry archive --all" in shown.stdout
    assert "python -m" not in shown.stdout


def test_version(tmp_path: Path) -> None:
    shown = consumers(tmp_path, "--version")
    assert (shown.returncode, shown.stdout) == (0, f"backpack-consumers {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "cadles"], "did you mean candles"),
        (["run", "no.such:Thing"], "cannot import no.such"),
        (["run", "candles", "--option", "intervals=7m"], "'7m' is no interval"),
        (["run", "candles", "--option", "levels=7"], "candles has no option 'levels'"),
        (["run", "tail", "--from", "yesterday"], "write beginning, new, a time"),
        (["run", "tail", "--from", "2999-01-01"], "--from 2999-01-01 is a time to come"),
        (["run", "tail", "--group", "a b"], "--group 'a b'"),
        (["run", "tail", "--config", "none.yaml"], "none.yaml"),
        (["deadletters", "show", "a", "nope"], "'nope' is no letter ID: `deadletters list` shows"),
        (["deadletters", "retry", "a", "5-1", "5"], "'5' is no letter ID: `deadletters list` sho"),
        (["deadletters", "drop", "a", "0-0"], "'0-0' is no letter ID: `deadletters list` shows"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    done = consumers(tmp_path, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "tail", "--grup", "x"],
        ["status", "--watch", "--every", "inf"],
        ["status", "--watch", "--every", "1e300"],
    ],
)
def test_a_wrong_option_is_a_usage_error(tmp_path: Path, arguments: list[str]) -> None:
    done = consumers(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_run_without_an_embedded_redis_is_an_error_with_the_reason(tmp_path: Path) -> None:
    done = consumers(tmp_path, "run", "tail", BRIDGE_REDIS__URL="embedded")
    assert done.returncode == 2
    assert "no embedded Redis runs" in done.stderr


def test_a_wrong_password_ends_run_with_one_error(tmp_path: Path) -> None:
    with running_redis(password="right") as server:
        url = server.url.replace("right", "wrong-secret")
        done = consumers(tmp_path, "run", "tail", BRIDGE_REDIS__URL=url)
    assert done.returncode == 2
    assert "refuses us" in done.stderr
    assert "put user and password into redis.url" in done.stderr
    assert "Traceback" not in done.stderr
    assert "wrong-secret" not in done.stderr


def test_tail_prints_one_line_an_entry_into_a_pipe(bench: Bench) -> None:
    bench.register(STREAM)
    bench.add(STREAM, trades(1, 300))
    worker = bench.start("tail")
    bench.until(lambda: worker.out.count("\n") == 300)
    assert worker.out.splitlines()[0].startswith("16:44:00.001 trade.SOL_USDC trade price=98.96 ")
    bench.add(STREAM, trades(301, 301))
    bench.until(lambda: worker.out.count("\n") == 301)
    assert worker.stop() == 0


def test_tail_ends_without_an_error_when_its_pipe_closes(bench: Bench) -> None:
    bench.register(STREAM)
    bench.add(STREAM, trades(1, 5000))
    command = f"{sys.executable} -m consumers run tail | head -3"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=bench.folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "BRIDGE_REDIS__URL": bench.url,
            "BRIDGE_LOG__LEVEL": "warning",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.count("\n") == 3
    assert done.stderr == ""
    assert bench.redis.hgetall("consumers:status") == {}  # the worker deleted its status


def test_patterns_that_fit_no_stream_are_logged_with_the_nearest(bench: Bench) -> None:
    worker = bench.start("tail", "--streams", "trde.*")
    bench.until(lambda: "no_streams_yet" in worker.err)
    assert "nearest" not in worker.err  # no stream is registered yet
    bench.register(STREAM, "depth.SOL_USDC")
    bench.until(lambda: "trade.*" in worker.err)
    assert worker.err.count("no_streams_yet") == 2
    assert worker.stop() == 0


def test_existing_group_continues_and_ignores_from(bench: Bench) -> None:
    bench.register(STREAM)
    bench.add(STREAM, trades(1, 3))
    first = bench.start("tail", "--from", "beginning")
    bench.until(lambda: first.out.count("\n") == 3)
    assert first.stop() == 0
    bench.add(STREAM, trades(4, 5))

    second = bench.start("tail", "--from", "new")

    bench.until(lambda: second.out.count("\n") == 2)  # entries that arrived meanwhile
    bench.until(lambda: "group_goes_on" in second.err)
    assert "take another --group" in second.err
    assert "group_goes_on" not in first.err


def test_redis_down_at_start_is_logged_once_and_waited_for(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.port = free_port()
    with running_bench(tmp_path, server.url) as one:
        worker = one.start("tail")
        one.until(lambda: "redis_unavailable" in worker.err)
        began = time.monotonic()
        one.until(lambda: time.monotonic() - began > 1.5)  # time for several attempts
        assert worker.err.count("redis_unavailable") == 1
        server.start()
        try:
            one.register(STREAM)
            one.add(STREAM, trades(1, 5))
            one.until(lambda: worker.out.count("\n") == 5)
            assert worker.err.count("redis_connected") == 1
            assert worker.stop() == 0
        finally:
            server.kill()


def test_redis_down_does_not_keep_ctrl_c_from_working(tmp_path: Path) -> None:
    with running_bench(tmp_path, f"redis://127.0.0.1:{free_port()}/0") as one:
        worker = one.start("candles")
        one.until(lambda: "redis_unavailable" in worker.err)
        assert worker.stop() == 0
        assert "Traceback" not in worker.err


def test_a_redis_outage_in_the_middle_loses_no_entry(tmp_path: Path) -> None:
    with (
        running_redis(appendonly=True) as server,
        running_bench(tmp_path, server.url) as one,
    ):
        one.register(STREAM)
        one.add(STREAM, trades(1, 10))
        worker = one.start("tail")
        one.until(lambda: worker.out.count("\n") == 10)
        server.stop()
        one.until(lambda: "redis_unavailable" in worker.err)
        server.start()
        one.add(STREAM, trades(11, 20))
        # The worker prints entries again that it had not acknowledged before the outage.
        one.until(lambda: all(f"trade_id={n} " in worker.out for n in range(1, 21)))


HANGING = """
import time
from consumers import Consumer

class Hanging(Consumer):
    name = "hanging"
    streams = ("trade.*",)

    def on_trade(self, delivery):
        print("in hand", flush=True)
        time.sleep(600)
"""


def test_a_second_ctrl_c_leaves_at_once_with_130(bench: Bench) -> None:
    (bench.folder / "outside.py").write_text(HANGING)
    bench.register(STREAM)
    bench.add(STREAM, trades(1, 1))
    worker = bench.start("outside:Hanging")
    bench.until(lambda: "in hand" in worker.out)
    worker.signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(within_s=0.5)  # the first signal waits for the current batch
    worker.signal(signal.SIGINT)
    assert worker.wait() == 130


def test_sigterm_commits_the_batch_and_releases_the_lease(bench: Bench) -> None:
    bench.register(STREAM)
    bench.add(STREAM, trades(1, 10))
    worker = bench.start("candles")
    bench.await_group(STREAM, "candles", entry_id(START_US + 10_000, 10))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert bench.owner(STREAM, "candles") == ""


def test_the_status_is_written_each_second_while_idle_and_a_supervisor_is_notified(
    bench: Bench,
) -> None:
    bench.register(STREAM)
    worker = bench.start("candles", "--health", "127.0.0.1:0")
    bench.until(lambda: bench.status("candles", worker))
    first = bench.status("candles", worker)["updated_us"]
    bench.until(lambda: bench.status("candles", worker)["updated_us"] > first)
    assert isinstance(bench.redis, redis.Redis)
    pages = ProcessPages(worker.err)
    bench.until(pages.is_ready)
    assert pages.is_alive()
