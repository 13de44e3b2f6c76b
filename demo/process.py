"""One part of the demo as a guarded process: it never outlives the demo.

Between the demo and the part runs a guard, a few lines of shell that wait on a pipe. The demo stops
a part by closing the pipe, and if the demo dies in any way, kill -9 included, the pipe closes too:
the guard sends SIGTERM to the part, and kills it if it does not end. Each part has a session of its
own, so that Ctrl-C reaches the demo alone, which then stops all in order.

Knows nothing of what the parts do.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

GRACE_S = 10  # between SIGTERM and SIGKILL
_POLL_S = 0.02

# $0 is a label, $1 the grace period in seconds, the rest the command. Descriptor 3 is the pipe: the
# reader wakes when its other end is closed. At the end the guard terminates its group, reader and
# sleep included, and reaps them: when the guard has ended, so has its group.
_GUARD = """
exec 3<&0
grace_s=$1
shift
"$@" </dev/null 3<&- &
part=$!
{
    read -r _ <&3
    trap 'wait; exit' TERM
    kill -TERM $part
    sleep "$grace_s" &
    wait
    kill -KILL $part
} &
reader=$!
wait $part
code=$?
trap '' TERM
kill -TERM 0
wait $reader
exit $code
"""


class Part:
    """A running part: `name`, its process group `pid`, and its log file."""

    def __init__(self, name: str, log: Path, guard: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.log = log
        self._guard = guard

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        folder: Path,
        environment: Mapping[str, str],
    ) -> "Part":
        """Start the part in `folder`, with all output in `log`."""
        with log.open("wb") as output:
            guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, f"demo-{name}", str(GRACE_S), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        return cls(name, log, guard)

    @property
    def pid(self) -> int:
        """The process group of guard and part."""
        return self._guard.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + n when signal n ended it, as in shells."""
        return self._guard.poll()

    async def stop(self) -> int:
        """Stop the part, wait for its end, and return its exit code."""
        self._hang_up()
        deadline = time.monotonic() + GRACE_S + 2
        while self.exit_code is None:
            if time.monotonic() > deadline:
                self.kill()
                return self._guard.wait()
            await asyncio.sleep(_POLL_S)
        return self._guard.wait()

    def kill(self) -> None:
        """Kill the part and its guard."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._hang_up()

    def output(self) -> str:
        """All output so far."""
        return self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""

    def last_line(self) -> str:
        """The last line of output."""
        lines = [line.strip() for line in self.output().splitlines() if line.strip()]
        return lines[-1] if lines else "it logged nothing"

    def _hang_up(self) -> None:
        assert self._guard.stdin is not None
        with contextlib.suppress(OSError):
            self._guard.stdin.close()
