"""The load generator, a process of its own: sends a saved workload over one WebSocket.

    python -m benchmarks.exchange WORKLOAD [--deflate] [--times PATH]

Plain blocking sockets and prepared frames, so that sending costs next to nothing. Prints `ready
PORT`, then `subscribed`; a line `go RATE` on its input (0: as fast as the socket accepts it) makes
it send everything; then it prints `sent SECONDS CPU_SECONDS`. With `--times` it writes the send
time of each frame to a file (float64, seconds of the monotonic clock).
"""

import base64
import hashlib
import socket
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from benchmarks.workload import Workload, load

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG, COMPRESSED = 1, 8, 9, 10, 0x40
QUIET_S = 0.3  # so long after its last request a client counts as subscribed
CHUNK_FRAMES = 200


def main() -> None:
    """Serve until the input ends."""
    path, *options = sys.argv[1:]
    workload = load(Path(path))
    framed = list(_framed(workload.frames, deflate="--deflate" in options))
    listener = socket.create_server(("127.0.0.1", 0))
    _print(f"ready {listener.getsockname()[1]}")
    exchange = Exchange(workload, deflate="--deflate" in options)
    threading.Thread(target=exchange.serve, args=(listener,), daemon=True).start()
    exchange.subscribed.wait()
    _print("subscribed")
    _, rate = sys.stdin.readline().split()
    cpu_s, begun_s = time.process_time(), time.monotonic()
    times = _send(exchange.client, framed, float(rate))
    if "--times" in options:
        Path(options[options.index("--times") + 1]).write_bytes(times.tobytes())
    _print(f"sent {time.monotonic() - begun_s:.3f} {time.process_time() - cpu_s:.3f}")
    sys.stdin.read()


class Exchange:
    """Serves one WebSocket client, and markets and books over REST."""

    def __init__(self, workload: Workload, *, deflate: bool) -> None:
        self.subscribed = threading.Event()
        self.client: socket.socket
        self._books = workload.books
        self._markets = workload.markets
        self._deflate = deflate

    def serve(self, listener: socket.socket) -> None:
        """Accept connections for ever, each in a thread."""
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):  # a client that is killed
            while request := _read_request(connection):
                target, headers = request
                if "upgrade" in headers.get("connection", "").lower():
                    self._upgrade(connection, headers)
                    return
                self._answer(connection, target)

    def _answer(self, connection: socket.socket, target: str) -> None:
        url = urlsplit(target)
        symbol = parse_qs(url.query).get("symbol", [""])[0]
        bodies = {"/api/v1/markets": self._markets, "/api/v1/depth": self._books.get(symbol, "{}")}
        body = bodies.get(url.path, "[]").encode()
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    def _upgrade(self, connection: socket.socket, headers: dict[str, str]) -> None:
        key = headers["sec-websocket-key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + MAGIC, usedforsecurity=False).digest())
        extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if self._deflate else b""
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"%bSec-WebSocket-Accept: %b\r\n\r\n" % (extension, accept)
        )
        self.client = connection
        settled: threading.Timer | None = None
        for opcode, payload in _client_frames(connection):
            if opcode == PING:
                connection.sendall(_frame(PONG, payload))
            elif opcode == TEXT and not self.subscribed.is_set():
                if settled is not None:
                    settled.cancel()
                settled = threading.Timer(QUIET_S, self.subscribed.set)
                settled.start()
            elif opcode == CLOSE:
                return


def _framed(frames: Sequence[bytes], *, deflate: bool) -> Iterator[bytes]:
    """WebSocket frames, optionally compressed with a shared context."""
    if not deflate:
        yield from (_frame(TEXT, frame) for frame in frames)
        return
    packer = zlib.compressobj(wbits=-15)
    for frame in frames:
        packed = packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH)
        yield _frame(TEXT | COMPRESSED, packed.removesuffix(b"\x00\x00\xff\xff"))


def _frame(opcode: int, payload: bytes) -> bytes:
    """A server's frame: final, not masked."""
    length = len(payload)
    if length < 126:
        return bytes([0x80 | opcode, length]) + payload
    if length < 65_536:
        return bytes([0x80 | opcode, 126]) + length.to_bytes(2, "big") + payload
    return bytes([0x80 | opcode, 127]) + length.to_bytes(8, "big") + payload


def _client_frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """A client's frames: masked, each short enough for one read."""
    with connection.makefile("rb") as file:
        while head := file.read(2):
            length = head[1] & 0x7F
            if length == 126:
                length = int.from_bytes(file.read(2), "big")
            elif length == 127:
                length = int.from_bytes(file.read(8), "big")
            mask = file.read(4)
            masked = file.read(length)
            yield head[0] & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))


def _read_request(connection: socket.socket) -> tuple[str, dict[str, str]] | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65_536)):
            return None
        data += more
    first, *lines = data.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return first.split()[1], {name.strip().lower(): value.strip() for name, _, value in pairs}


def _send(client: socket.socket, framed: Sequence[bytes], rate: float) -> "array[float]":
    """Send as fast as possible in large pieces, or each frame at its time. Returns the send times,
    empty in the first case.
    """
    times = array("d")
    if not rate:
        for start in range(0, len(framed), CHUNK_FRAMES):
            client.sendall(b"".join(framed[start : start + CHUNK_FRAMES]))
        return times
    begun_s = time.monotonic()
    for number, frame in enumerate(framed):
        early_s = begun_s + number / rate - time.monotonic()
        if early_s > 0:
            time.sleep(early_s)
        times.append(time.monotonic())
        client.sendall(frame)
    return times


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
