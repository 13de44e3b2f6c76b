"""`python -m bridge top` as a process: plain lines without a terminal, the view on a terminal."""

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.integration.view.conftest import Bus
from tests.support import warm
from tests.support.command import environment, run_bridge, start_bridge
from tests.support.redis_server import RedisServer

LIMIT_S = 20.0


class Terminal:
    """A command on a pseudo-terminal: its output so far, and its keyboard."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.master = master
        self.painted = ""

    def until(self, text: str) -> str:
        """Read until the command has printed `text`; the output since the last wait."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self.painted:
            assert time.monotonic() < deadline, f"{text!r} was not printed: {self.painted!r}"
            self._read()
        before, _, after = self.painted.rpartition(text)
        self.painted = after
        return before + text

    def _read(self) -> None:
        if select.select([self.master], [], [], 0.1)[0]:
            try:
                self.painted += os.read(self.master, 65_536).decode(errors="replace")
            except OSError:  # the command closed the terminal
                assert self.process.poll() is None, self.painted

    def resize(self, columns: int, lines: int) -> None:
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def press(self, key: bytes) -> None:
        os.write(self.master, key)


@contextmanager
def on_terminal(
    folder: Path, redis_url: str, *arguments: str, program: Sequence[str] = ("-m", "bridge", "top")
) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env=environment(redis_url, TERM="xterm-256color"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # a controlling terminal: Ctrl-C works
    )
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def test_once_prints_all_streams_and_consumers(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    done = run_bridge(tmp_path, redis_url, "top", "--once", "--every", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith(
        "2 streams, 0 entries/s, exchange → bridge 0.8ms p99 0.8ms, 1 gaps, 0 quarantined"
    )
    assert "  book/w1: 2 handled, 0.6ms p99 4.1ms; SOL_USDC 98.97/98.99" in lines
    [trade] = [line for line in lines if line.startswith("  trade.SOL_USDC ")]
    assert "2 entries" in trade
    assert trade.endswith("sell 2.5 @ 99.01")


def test_top_unwritable_output_is_not_reported_as_a_redis_error(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    with open("/dev/full", "w") as full:
        done = warm.run(
            [sys.executable, "-m", "bridge", "top", "--once"],
            env=environment(redis_url),
            cwd=tmp_path,
            stdout=full,
            text=True,
            timeout=LIMIT_S,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "error: what is printed cannot be written: No space left on device\n",
    )


def test_top_prints_plain_lines_repeatedly_for_the_requested_time(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    done = run_bridge(tmp_path, redis_url, "top", "--every", "0.2", "--for", "1")
    assert done.returncode == 0
    assert sum("2 streams" in line for line in done.stdout.splitlines()) >= 2


def test_ctrl_c_leaves_with_130(full_bus: Bus, redis_url: str, tmp_path: Path) -> None:
    process = start_bridge(tmp_path, redis_url, "top", "--every", "0.2")
    assert process.stdout is not None
    assert "2 streams" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, errors) == (130, "")


def test_top_unreachable_redis_is_reported_and_fails_if_never_reached(tmp_path: Path) -> None:
    done = run_bridge(tmp_path, "redis://127.0.0.1:1/0", "top", "--every", "0.2", "--for", "0.5")
    assert done.returncode == 1
    assert done.stdout.startswith("Redis at redis://127.0.0.1:1/0 does not answer: ")
    assert done.stderr.startswith("error: Redis at redis://127.0.0.1:1/0 cannot be read: ")
    assert "start it, or set redis.url" in done.stderr
    once = run_bridge(tmp_path, "redis://127.0.0.1:1/0", "top", "--once")
    assert (once.returncode, once.stdout) == (1, "")
    assert once.stderr.startswith("error: Redis at redis://127.0.0.1:1/0 cannot be read: ")


@pytest.mark.parametrize(("how", "code"), [(b"q", 0), (b"\x03", 130)])
def test_top_on_a_terminal_updates_and_restores_the_terminal(
    full_bus: Bus, redis_url: str, tmp_path: Path, how: bytes, code: int
) -> None:
    with on_terminal(tmp_path, redis_url, "--every", "0.1") as terminal:
        before = termios.tcgetattr(terminal.master)
        assert "\x1b[?1049h" in terminal.until("sell 2.5 @ 99.01")
        full_bus.trade("trade.SOL_USDC", "1700000000000-90", trade_id="9", quantity="77")
        terminal.until("sell 77 @ 99.01")
        terminal.press(how)
        terminal.until("\x1b[?1049l")
        assert terminal.process.wait(LIMIT_S) == code
        assert termios.tcgetattr(terminal.master)[3] == before[3]


def test_leaving_where_redis_was_never_reached_states_the_remedy(tmp_path: Path) -> None:
    with on_terminal(tmp_path, "redis://127.0.0.1:1/0", "--every", "0.1") as terminal:
        terminal.until("does not answer")
        terminal.press(b"q")
        terminal.until("start it, or set redis.url")
        assert terminal.process.wait(LIMIT_S) == 1


def test_keys_pause_the_view_and_read_a_stream_and_an_entry(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    with on_terminal(tmp_path, redis_url, "--every", "0.1") as terminal:
        terminal.until("sell 2.5 @ 99.01")
        terminal.press(b"/trade\r")
        terminal.until("/trade")
        terminal.press(b" ")
        terminal.until("PAUSED, 0.")
        full_bus.trade("trade.SOL_USDC", "1700000000000-90", trade_id="9", quantity="77")
        painted = ""
        while not re.search(r"PAUSED, [1-9]", painted):  # after ten polls
            painted += terminal.until("s ago")
        assert "sell 77" not in painted
        terminal.press(b" ")
        terminal.until("sell 77 @ 99.01")
        terminal.press(b"\r")
        terminal.until("sell 1.50 @ 99.01")  # the stream's oldest entry
        terminal.press(b"\x1b[B\r")
        terminal.until("python -m bridge explain trade.SOL_USDC 1700000000000-80")
        terminal.until("buyer_is_maker")
        terminal.press(b"q")
        assert terminal.process.wait(LIMIT_S) == 0


# A view with an owner, like the demo: the owner gives its lines, and handles its keys.
OWNED = """
import asyncio, sys
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect
from bridge.runtime.terminal import new_console
from bridge.view.viewer import View, show_live

async def main():
    footer, keys = [" nothing pressed"], {"d": lambda: footer.append(f" pressed {len(footer)}")}
    async with connect(sys.argv[1], name="test", decode_responses=True) as client:
        view = View(client, KeySpace(), "here", 0.1, footer, keys)
        await show_live(view, new_console(), asyncio.Event())

asyncio.run(main())
"""


def test_owner_keys_and_lines_are_in_the_view_and_search_letters_are_not_keys(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    with on_terminal(tmp_path, redis_url, redis_url, program=("-c", OWNED)) as terminal:
        terminal.until("nothing pressed")
        terminal.press(b"d")
        terminal.until("pressed 1")
        terminal.press(b"/dep\r")
        terminal.until("/dep")
        terminal.press(b"D")
        terminal.until("pressed 2")
        terminal.press(b"q")
        assert terminal.process.wait(LIMIT_S) == 0
        assert "pressed 3" not in terminal.painted


def test_the_view_turns_red_at_once_when_redis_stands_still(
    full_bus: Bus, redis_server: RedisServer, tmp_path: Path
) -> None:
    with on_terminal(tmp_path, redis_server.url, "--every", "0.1") as terminal:
        terminal.until("sell 2.5 @ 99.01")
        redis_server.pause()
        try:
            red = terminal.until("does not answer: this picture is ")
            age = re.match(r"[\d.]+", terminal.until("s old"))
        finally:
            redis_server.resume()
        assert "\x1b[1;37;41m" in red
        assert age is not None
        assert float(age[0]) < 4
        terminal.until("? keys")


def test_the_view_follows_the_size_of_its_terminal(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    with on_terminal(tmp_path, redis_url, "--every", "60") as terminal:
        terminal.until("q leaves")
        painted = ""
        while "─" * 150 not in painted:  # long before the next poll, which comes after 60 s
            terminal.resize(150, 40)
            painted = terminal.until("q leaves")
