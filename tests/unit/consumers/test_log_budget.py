"""Limits on the log lines of a stream that always fails; a closed stdout ends the worker."""

import os
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumers import Consumer, Delivery, StopWorker, Trade
from consumers.kit.handling.batch import BatchRunner
from consumers.kit.handling.entry import entry_of
from consumers.kit.handling.failure import HandlerFailed, is_stdout_closed
from consumers.kit.handling.log_budget import MOST, PER_S, LogBudget
from consumers.kit.handling.yielding import Pace
from tests.support.consumer_batches import stats
from tests.support.consumer_entries import START_US, trade


def test_the_first_lines_of_a_stream_are_written_and_the_others_counted() -> None:
    budget = LogBudget()
    assert [budget.take("a", 100.0) for _ in range(MOST + 2)] == [{}] * MOST + [None, None]
    assert budget.take("b", 100.0) == {}
    assert budget.take("a", 100.0 + PER_S) == {"left_out": 2}
    assert budget.take("a", 100.0 + PER_S) == {}


def test_a_broken_pipe_is_stdouts_only_if_stdout_has_no_reader(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        # the error is of another pipe or socket of the handler
        assert not is_stdout_closed(BrokenPipeError())
        os.close(read_end)
        assert not is_stdout_closed(ValueError())
        assert is_stdout_closed(BrokenPipeError())
        print("goes nowhere", file=out, flush=True)
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert not is_stdout_closed(BrokenPipeError())


class Printing(Consumer):
    name, streams = "printing", ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        print(delivery.event.price, flush=True)


class PrintingAsync(Consumer):
    name, streams = "printing", ("trade.*",)

    async def on_trade(self, delivery: Delivery[Trade]) -> None:
        print(delivery.event.price, flush=True)


@pytest.mark.parametrize("consumer", [Printing(), PrintingAsync()])
async def test_a_handler_that_prints_to_a_closed_pipe_ends_its_worker(
    monkeypatch: pytest.MonkeyPatch, consumer: Consumer
) -> None:
    read_end, write_end = os.pipe()
    runner = BatchRunner(consumer, stats())
    with os.fdopen(write_end, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        os.close(read_end)
        with pytest.raises(StopWorker):
            await runner.run_apart(
                "trade.SOL_USDC", [entry_of("1-10", trade(1, START_US))], [], Pace()
            )


def test_a_handler_that_fails_at_each_entry_writes_a_few_lines() -> None:
    failed = HandlerFailed("trade.LOUD_USDC", "1-10")
    with capture_logs() as logs:
        for failures in range(MOST + 20):
            failed.log(failures, 0.25)

    assert [line["event"] for line in logs] == ["handler_failed"] * MOST
