"""Waits for the entries of one stream and records when each can be read, in its own process.

    python -m benchmarks.reader PORT STREAM COUNT PATH

A blocking socket and XREAD BLOCK, so that it adds one wake-up only. Prints `ready` before it waits,
and ends after COUNT messages, with their times in the file (float64, seconds of the monotonic
clock, which all processes share).
"""

import socket
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import hiredis

OWN = (b"gap", b"depth_snapshot")  # entries of the bridge without a message


def main() -> None:
    """Read until all messages have arrived."""
    port, stream, count, path = sys.argv[1:]
    times, total, last = array("d"), int(count), b"0-0"
    replies = hiredis.Reader()
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("ready", flush=True)
        while len(times) < total:
            command = ("XREAD", "BLOCK", "0", "STREAMS", stream, last)
            connection.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]
            while (reply := replies.gets()) is False:
                replies.feed(connection.recv(1 << 16))
            now_s = time.monotonic()
            [[_, entries]] = _checked(reply)
            times.extend(now_s for _, fields in entries if fields[1] not in OWN)
            last = entries[-1][0]
    Path(path).write_bytes(times[:total].tobytes())


def _checked(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        raise SystemExit(f"Redis refuses: {reply}")
    return reply


if __name__ == "__main__":
    main()
