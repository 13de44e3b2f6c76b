"""Replay of an unusual or damaged journal, of one of another bridge, and of one beyond the memory
limit.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support import frames
from tests.support.bridge_process import run_bridge
from tests.support.bridge_run import entries
from tests.support.redis_server import RedisServer, running_redis

TRADES, TICKERS, ORDERS = "trade.BTC_USDC_PERP", "ticker.BTC_USDC_PERP", "account.orderUpdate"
NOW_US = 1790915531_000000
FIRST = 99419870
SMALL = {"BRIDGE_PUBLISH__BUFFER_BYTES": "1048576"}
ITSELF = "wss://ws.backpack.exchange"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running_server:
        yield running_server


def opened(*streams: str, us: int = NOW_US) -> str:
    body = json.dumps({"name": "public-1", "streams": streams})
    return f"{us} O 1 {body}\n{us} A 1 {us}\n"


def trade(number: int, us: int) -> str:
    return f"{us} F 1 {frames.TRADE.replace(str(FIRST), str(FIRST + number))}\n"


def trades(numbers: Iterable[int], begin_us: int = NOW_US, step_us: int = 1) -> str:
    return "".join(trade(number, begin_us + number * step_us) for number in numbers)


def journal(folder: Path, *lines: str, owner: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "00000000000000000000.journal").write_text("".join(lines))
    if owner is not None:
        (folder / "owner.json").write_text(json.dumps(owner))
    return folder


def replay(
    folder: Path, server: RedisServer, *arguments: str, **variables: str
) -> tuple[int, str, str]:
    answer = run_bridge(
        folder, "replay", str(folder), *arguments, BRIDGE_REDIS__URL=server.url, **variables
    )
    assert "Traceback" not in answer.stderr
    lines = [line for line in answer.stderr.splitlines(keepends=True) if line[0] != "{"]  # no log
    return answer.returncode, answer.stdout, "".join(lines)


def stored(server: RedisServer, stream: str = TRADES) -> list[dict[str, str]]:
    with server.client(decode_responses=True) as client:
        return [fields for _, fields in entries(client, stream)]


def numbers(server: RedisServer) -> list[int]:
    return [
        int(fields["trade_id"]) - FIRST for fields in stored(server) if fields["type"] == "trade"
    ]


def gaps(server: RedisServer, stream: str = TRADES) -> list[str]:
    return [fields["cause"] for fields in stored(server, stream) if fields["type"] == "gap"]


def test_from_and_to_choose_what_is_published(server: RedisServer, tmp_path: Path) -> None:
    begin_us = NOW_US + 10_000_000
    journal(tmp_path, opened(TRADES), trades(range(6), begin_us, 1_000_000))

    result = replay(
        tmp_path, server, "--from", str(begin_us + 2_000_000), "--to", str(begin_us + 5_000_000)
    )

    assert result == (0, "replayed 3 frames of 1 streams\n", "")
    assert numbers(server) == [2, 3, 4]
    assert gaps(server) == ["start"]


def test_replay_registers_a_stream_at_its_first_message(
    server: RedisServer, tmp_path: Path
) -> None:
    late = f"{NOW_US + 5000} F 1 {frames.TICKER}\n"
    journal(tmp_path, opened(TRADES, TICKERS, "trade.SOL_USDC"), trades(range(3000)), late)

    assert replay(tmp_path, server)[0] == 0

    with server.client(decode_responses=True) as client:
        assert set(client.hkeys("bridge:streams")) == {TRADES, TICKERS}  # type: ignore[arg-type]


def test_replay_with_an_invalid_registry_reports_it_and_completes(
    server: RedisServer, tmp_path: Path
) -> None:
    with server.client() as client:
        client.set("bridge:streams", "of another program")
    journal(tmp_path, opened(TRADES), trades(range(3)))

    code, _, errors = replay(tmp_path, server)

    assert code == 1
    assert "streams could not be listed: WRONGTYPE" in errors
    assert numbers(server) == [0, 1, 2]


def test_from_and_to_are_understood_in_seconds_and_as_times(
    server: RedisServer, tmp_path: Path
) -> None:
    journal(tmp_path, opened(TRADES), trades(range(6), NOW_US, 1_000_000))

    result = replay(tmp_path, server, "--from", "1790915533", "--to", "2026-10-02T04:32:15")

    assert result == (0, "replayed 2 frames of 1 streams\n", "")
    assert numbers(server) == [2, 3]


def test_replay_continues_after_a_moment_with_a_wrong_clock(
    server: RedisServer, tmp_path: Path
) -> None:
    far_us = NOW_US + 3_600_000_000
    journal(
        tmp_path,
        opened(TRADES), trade(0, NOW_US), trade(1, far_us), trades([2, 3, 9], NOW_US, 1_000_000),
    )  # fmt: skip

    code, output, _ = replay(tmp_path, server, "--to", str(NOW_US + 5_000_000))

    assert (code, output) == (0, "replayed 3 frames of 1 streams\n")
    assert numbers(server) == [0, 2, 3]
    assert gaps(server) == ["start", "skipped"]


def test_replay_interval_without_messages_is_reported(server: RedisServer, tmp_path: Path) -> None:
    journal(tmp_path, opened(TRADES), trades(range(3)))

    code, output, errors = replay(tmp_path, server, "--to", "2020-01-01")

    assert (code, output) == (0, "replayed 0 frames of 1 streams\n")
    assert errors == f"no frame was received in that time: see journal info {tmp_path}\n"


@pytest.mark.parametrize("arguments", [("--from", "²"), ("--from", "2026-10-03", "--to", "1e9")])
def test_replay_invalid_times_are_reported_in_one_line(
    arguments: tuple[str, ...], server: RedisServer, tmp_path: Path
) -> None:
    journal(tmp_path, opened(TRADES), trades(range(3)))

    code, output, errors = replay(tmp_path, server, *arguments)

    assert (code, output) == (2, "")
    assert "write beginning, new, a time such as" in errors


def test_replay_more_pending_after_a_gap_than_the_memory_limit_is_marked(
    server: RedisServer, tmp_path: Path
) -> None:
    journal(tmp_path, opened(TRADES), trades([0, *range(2, 3000)]))

    assert replay(tmp_path, server, **SMALL) == (0, "replayed 2,999 frames of 1 streams\n", "")

    assert numbers(server) == [0, *range(2, 3000)]
    assert gaps(server) == ["start", "skipped"]


def test_replay_reads_on_after_a_gap_until_its_recovery(
    server: RedisServer, tmp_path: Path
) -> None:
    rows = [
        {"id": FIRST + number, "isBuyerMaker": False, "price": "1", "quantity": "1", "timestamp": 1}
        for number in range(3)
    ]
    journal(
        tmp_path,
        opened(TRADES), trades([0, *range(2, 800)]),
        f"{NOW_US + 800} R 0 {TRADES} {json.dumps(rows)}\n", trades(range(800, 3000)),
    )  # fmt: skip

    assert replay(tmp_path, server, **SMALL)[0] == 0

    assert numbers(server) == list(range(3000))
    assert gaps(server) == ["start"]


def test_replay_book_held_for_missing_changes_does_not_stop_it(
    server: RedisServer, tmp_path: Path
) -> None:
    def depth(number: int) -> str:
        frame = frames.DEPTH.replace("4330360995", str(4330360995 + number))
        return f"{NOW_US + number} F 1 {frame}\n"

    journal(tmp_path, opened("depth.SOL_USDC"), *map(depth, [0, *range(2, 3000)]))

    assert replay(tmp_path, server, **SMALL)[0] == 0

    assert gaps(server, "depth.SOL_USDC") == ["start", "skipped"]
    assert len(stored(server, "depth.SOL_USDC")) == 2 + 2999


def test_replay_unwritable_stream_is_bounded_and_reported(
    server: RedisServer, tmp_path: Path
) -> None:
    journal(tmp_path, opened(TRADES, TICKERS), trades(range(3000)), _tickers(10))
    with server.client() as client:
        client.set(TRADES, "a string")

    code, _, errors = replay(tmp_path, server, **SMALL)

    assert code == 1
    assert f"{TRADES} could not be written: WRONGTYPE" in errors
    assert f"messages of {TRADES} were dropped" in errors
    assert len(stored(server, TICKERS)) == 10


def _tickers(count: int) -> str:
    return "".join(
        f"{NOW_US + number} F 1 {frames.TICKER.replace('1790134358087727', str(NOW_US + number))}\n"
        for number in range(count)
    )


def test_replay_skips_and_reports_damaged_records(server: RedisServer, tmp_path: Path) -> None:
    damaged = (
        f'{NOW_US} S 0 {{"connections":["1"]}}\n',
        f"{NOW_US} O 1 rubbish\n",
        f"{NOW_US} O 2 {{}}\n",
        f'{NOW_US} O 2 ["streams"]\n',
        f"{NOW_US} O 2 {'[' * 100_000}\n",
        f"{NOW_US} L 2 5\n",
        "rubbish\n",
    )
    journal(tmp_path, *damaged, opened(TRADES), trades(range(3)))

    code, output, errors = replay(tmp_path, server)

    assert (code, output) == (1, "replayed 3 frames of 1 streams\n")
    assert errors == (
        f"error: 7 damaged lines were skipped: python -m bridge journal verify {tmp_path}\n"
    )
    assert numbers(server) == [0, 1, 2]


def test_replay_later_streams_are_counted_and_begin_at_the_requested_time(
    server: RedisServer, tmp_path: Path
) -> None:
    changed = json.dumps({"streams": [TICKERS, TRADES]})
    journal(
        tmp_path, opened(TICKERS), f"{NOW_US} C 1 {changed}\n", trades(range(6), NOW_US, 1_000_000)
    )

    result = replay(tmp_path, server, "--from", str(NOW_US + 3_000_000))

    assert result == (0, "replayed 3 frames of 2 streams\n", "")
    assert numbers(server) == [3, 4, 5]


def order_journal(folder: Path, **owner: str) -> Path:
    frame = f"{NOW_US} F 1 {frames.ORDER_ACCEPTED}\n"
    return journal(folder, opened(ORDERS), frame, owner=owner or None)


def test_replay_private_streams_are_written_under_their_accounts_prefix_only(
    server: RedisServer, tmp_path: Path
) -> None:
    order_journal(tmp_path, exchange=ITSELF, account="mine")
    with server.client() as client:
        client.set("bridge:account", "another")

    refused = replay(tmp_path, server)
    apart = replay(tmp_path, server, BRIDGE_REDIS__KEY_PREFIX="apart:")

    assert refused[0] == 1
    assert "belong to the account with key fingerprint another, yours is mine" in refused[2]
    assert stored(server, ORDERS) == []
    assert apart[0] == 0
    assert len(stored(server, f"apart:{ORDERS}")) > 0
    with server.client(decode_responses=True) as client:
        assert client.get("apart:bridge:account") == "mine"


def test_private_streams_of_an_unknown_account_are_refused(
    server: RedisServer, tmp_path: Path
) -> None:
    order_journal(tmp_path)

    code, _, errors = replay(tmp_path, server)

    assert code == 2
    assert "no owner.json beside it names the account" in errors


def test_replay_of_another_exchanges_journal_is_refused_unless_configured(
    server: RedisServer, tmp_path: Path
) -> None:
    owner = {"exchange": "ws://127.0.0.1:8765", "account": ""}
    journal(tmp_path, opened(TRADES), trades(range(3)), owner=owner)

    code, _, errors = replay(tmp_path, server)
    elsewhere = replay(tmp_path, server, BRIDGE_EXCHANGE__WS_URL="ws://127.0.0.1:8765")

    assert code == 2
    assert f"was received from ws://127.0.0.1:8765, and exchange.ws_url is {ITSELF}" in errors
    assert elsewhere[0] == 0
    assert numbers(server) == [0, 1, 2]
