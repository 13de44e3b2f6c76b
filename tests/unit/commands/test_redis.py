"""`python -m bridge redis` stops on SIGTERM at any line of its code; the server is replaced."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import typer

from bridge.commands import redis
from bridge.runtime.embedded import EmbeddedServer


@contextlib.contextmanager
def signal_after(lines: int, function: str) -> Iterator[None]:
    """Raise SIGTERM after `lines` executed lines, counted from the first line of `function` and
    including the functions that it calls.
    """
    left = lines

    def count(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if left == lines and frame.f_code.co_name != function:
            return None
        left -= event == "line"
        if left < 0:
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return count

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    traced = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(traced)
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("lines", range(1, 30))
def test_sigterm_between_any_two_lines_stops_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    server = EmbeddedServer("redis://127.0.0.1:1/0", 1, joined=False, data_dir=tmp_path)
    monkeypatch.setattr(redis, "running_server", lambda _: contextlib.nullcontext(server))
    monkeypatch.setattr(redis, "has_ended", lambda _: False)
    monkeypatch.setattr(redis, "_POLL_EVERY_S", 0.001)
    monkeypatch.setattr(redis, "setup_logs", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.Exit) as ended, signal_after(lines, "_until_stopped"):
        redis.command(port=0, data_dir=tmp_path, config=None)
    assert ended.value.exit_code == 0
