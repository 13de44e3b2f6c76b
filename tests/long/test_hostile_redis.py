"""Commands that read a Redis where another program has written to every key of the bridge: they
show valid data, bounded and escaped, or report the fault in one sentence.
"""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from bridge.__main__ import app as bridge_app
from bridge.runtime.terminal import MOST_SHOWN
from consumers.__main__ import cli as consumers_app

HASHES = ("bridge:status", "bridge:peers", "bridge:watermarks", "consumers:status",
          "consumers:groups")  # fmt: skip
STREAMS = ("trade.A", "depth.A", "bridge:gaps", "bridge:quarantine")
BESIDE = "consumers:{trade.A}:candles"
PARTS = ("dead", "again", "lease", "position", "settled", "state", "ticks")
FORGED = "\x1b]0;X\x07\r\nforged"

APPS = {"bridge": bridge_app, "consumers": consumers_app}
COMMANDS = [
    "bridge status",
    "bridge status --json",
    "bridge top --once",
    "bridge tap trade.A depth.A bridge:gaps --from beginning --count 6",
    "bridge explain trade.A 1700000000000-10",
    "bridge explain trade.A 1700000000001-11 --json",
    "bridge audit trade.A",
    "bridge audit depth.A",
    "bridge book A --at 1700000000009-0",
    "consumers status",
    "consumers status --json",
    "consumers deadletters list",
    "consumers deadletters show candles 1700000000001-11",
    "consumers deadletters retry candles --all",
    "consumers deadletters drop candles --all",
]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        for name in ("trade.A", "depth.A"):
            facts = {"type": name[:5], "identity": "sequenced", "symbol": "A", "private": False}
            client.hset("bridge:streams", name, json.dumps(facts))
        yield client


@pytest.fixture
def run(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], dict[str, str]]]:
    """A function that runs every command; the output of each, by its command line."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(f"redis: {{url: '{redis_url}'}}\nstreams: [trade.A, depth.A]\n")
    before = signal.getsignal(signal.SIGINT)

    def run_all() -> dict[str, str]:
        outputs = {}
        for words in COMMANDS:
            program, *arguments = words.split()
            result = CliRunner().invoke(APPS[program], [*arguments, "--config", "config.yaml"])
            broken = result.exc_info[1] if result.exc_info else None
            assert broken is None or isinstance(broken, SystemExit), f"{words}: {broken!r}"
            assert result.exit_code in (0, 1), f"{words}: {result.output}"
            outputs[words] = result.output
        return outputs

    yield run_all
    signal.signal(signal.SIGINT, before)


def test_commands_on_keys_of_another_kind_report_them_in_sentences(
    client: redis.Redis, run: Callable[[], dict[str, str]]
) -> None:
    for key in (*HASHES, *STREAMS, "bridge:account", "consumers:workers:candles"):
        client.lpush(key, "x")
    output = run()
    assert "bridge:status: WRONGTYPE" in output["bridge status"]
    assert "(XRANGE bridge:gaps)" in output["bridge audit trade.A"]
    assert "(HGETALL consumers:groups)" in output["consumers status"]


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00",
        "[" * 50_000,
        "9" * 5_000,
        "-" + "9" * 5_000,
        FORGED,
        "",
        "[[1, 2, 3]]",
        '{"streams": {"trade.A": 5}, "at_us": 1e999, "counters": [1], "state": NaN}',
        '"\\ud800"',
    ],
    ids=["bytes", "nested", "digits", "negative", "escapes", "empty", "levels", "object", "lone"],
)
def test_commands_on_invalid_values_show_them_bounded_and_escaped(
    client: redis.Redis, run: Callable[[], dict[str, str]], text: str | bytes
) -> None:
    _write_everywhere(client, text)
    for words, output in run().items():
        lines = output.splitlines()
        assert not any(line.startswith("forged") for line in lines), words
        assert not {"\x1b", "\x07"} & set(output), words
        # those are for programs and not shortened
        if "show" not in words and "--json" not in words:
            assert max(map(len, lines), default=0) < MOST_SHOWN + 200, words


def _write_everywhere(client: redis.Redis, text: str | bytes) -> None:
    for key in HASHES:
        for field in ("trade.A", "candles", "candles/w", "bridge-1"):
            client.hset(key, field, text)
    client.hset("bridge:streams", "ticker.B", text)
    client.set("bridge:account", text)
    client.zadd("consumers:workers:candles", {text: float("inf"), "w/1": 1e300})
    numbers = ("event_us", "engine_us", "received_us")
    for fields in (
        {"type": "trade", "symbol": "A", **dict.fromkeys(("trade_id", "price", *numbers), text)},
        {"type": text},
    ):
        client.xadd("trade.A", fields)  # type: ignore[arg-type]
    gap = ("cause", "from", "to", "from_us", "to_us", "received_us", "stream")
    client.xadd("trade.A", {"type": "gap", **dict.fromkeys(gap, text)}, id="1900000000001-11")  # type: ignore[arg-type]
    sides = {"bids": text, "asks": text, "received_us": text}
    snapshot = {"type": "depth_snapshot", "update_id": text, **sides}
    change = {"type": "depth", "first_update_id": text, "last_update_id": "1", **sides}
    client.xadd("depth.A", snapshot, id="1700000000000-12")  # type: ignore[arg-type]
    client.xadd("depth.A", change, id="1700000000001-20")  # type: ignore[arg-type]
    client.xadd("bridge:gaps", {"type": "gap", **dict.fromkeys(gap, text)})  # type: ignore[arg-type]
    client.xadd("bridge:quarantine", dict.fromkeys(("stream", "reason", "raw"), text))  # type: ignore[arg-type]
    letter = ("stream", "entry_id", "attempts", "error", "at", "worker", "fields")
    for part in ("dead", "again"):
        client.xadd(f"{BESIDE}:{part}", dict.fromkeys(letter, text), id="1700000000001-11")  # type: ignore[arg-type]
    for part in ("position", "settled", "state", "ticks"):
        client.hset(f"{BESIDE}:{part}", mapping=dict.fromkeys(("id", "tries", "missed", "a"), text))  # type: ignore[arg-type]
    client.xgroup_create("trade.A", "candles", "0")
    client.xgroup_create("trade.A", b"g\xff" + FORGED.encode(), "0")
    client.xreadgroup(b"g\xff" + FORGED.encode(), FORGED, {"trade.A": ">"}, count=1)
