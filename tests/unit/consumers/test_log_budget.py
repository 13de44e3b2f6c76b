"""Lines of a stream that fails all the time, and a pipe that nobody reads."""

import os
import sys
from pathlib import Path

import pytest

from consumers.kit.handling.failure import is_stdout_gone
from consumers.kit.handling.log_budget import MOST, PER_S, LogBudget


def test_the_first_lines_of_a_stream_are_written_and_the_others_counted() -> None:
    budget = LogBudget()
    assert [budget.take("a", 100.0) for _ in range(MOST + 2)] == [{}] * MOST + [None, None]
    assert budget.take("b", 100.0) == {}
    assert budget.take("a", 100.0 + PER_S) == {"left_out": 2}
    assert budget.take("a", 100.0 + PER_S) == {}


def test_a_broken_pipe_is_stdouts_only_where_nobody_reads_that_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert not is_stdout_gone(BrokenPipeError())  # another pipe, or a socket, of the handler's
        os.close(read_end)
        assert not is_stdout_gone(ValueError())
        assert is_stdout_gone(BrokenPipeError())
        print("goes nowhere", file=out, flush=True)
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert not is_stdout_gone(BrokenPipeError())
