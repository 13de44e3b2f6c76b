"""`python -m bridge console` as a real process: HTTP requests, with a real Redis."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from bridge.contract.latency import BOUNDS_US
from tests.integration.view.conftest import Bus
from tests.support.command import ROOT, environment, run_bridge, start_bridge
from tests.support.eventually import eventually
from tests.support.limited_user import as_limited, without
from tests.support.redis_server import RedisServer

TOKEN = "a-token-of-sixteen"
GROUP = "mine"
STREAM = "trade.SOL_USDC"


class Site:
    """A running console. Requests carry its Origin, and the token if given."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self._client = httpx2.Client(trust_env=False, timeout=30)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return self._client.get(self.url + path, headers=headers)

    def post(self, path: str, body: Any, token: str = TOKEN) -> httpx2.Response:
        headers = {"origin": self.url.rstrip("/"), "authorization": f"Bearer {token}"}
        return self._client.post(self.url + path, json=body, headers=headers)

    @contextmanager
    def events(self, **query: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """The events of a page, as pairs of name and value.

        Requests again, as the page does, until the console has read Redis.
        """
        with contextlib.ExitStack() as stack:
            deadline_s = time.monotonic() + 20
            while True:
                opened = self._client.stream("GET", f"{self.url}events", params=query)
                answer = stack.enter_context(opened)
                if answer.status_code != 503 or time.monotonic() > deadline_s:
                    break
            assert answer.status_code == 200, answer.read()

            def each() -> Iterator[tuple[str, Any]]:
                name = ""
                for line in answer.iter_lines():
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        yield name, json.loads(line.removeprefix("data: "))

            yield each()

    def beginning(self, **query: str) -> tuple[Any, Any]:
        """The first events of a page: the head common to all pages, and the page's own content."""
        latest: dict[str, Any] = {}
        with self.events(**query) as events:
            while len(latest) < 2:
                name, value = next(events)
                latest[name] = value
        return latest["head"], latest["whole"]

    def first(self, *names: str, **query: str) -> Any:
        """The value of the first event of one of these names."""
        with self.events(**query) as events:
            return next(value for name, value in events if name in names)


@contextmanager
def running_console(folder: Path, redis_url: str, *arguments: str) -> Iterator[Site]:
    process = start_bridge(folder, redis_url, "console", "--listen", "127.0.0.1:0", *arguments)
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, process.communicate()
        site = Site(process, found.group())
        with contextlib.closing(site):
            yield site
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Site]:
    """One console for all tests of this module: it reads what each test writes."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "token").write_text(TOKEN + "\n")
    with running_console(folder, redis_server.url, "--token-file", "token") as site:
        yield site


def dead_letter(client: redis.Redis, stream: str, group: str = GROUP, **given: str) -> str:
    client.xadd(stream, {"a": "1"})
    client.xgroup_create(stream, group, "0", mkstream=True)
    client.hset("consumers:groups", group, json.dumps({"mode": "shared", "streams": ["trade.*"]}))
    fields = {
        "stream": stream,
        "entry_id": "1700000000000-70",
        "attempts": "5",
        "error": "ValueError: no",
        "at": "mine.py:7",
        "worker": "w1",
        "fields": json.dumps({"price": "99.01"}),
    }
    letter: Any = client.xadd(f"consumers:{{{stream}}}:{group}:dead", fields | given)  # type: ignore[arg-type]
    return str(letter)


def test_every_page_is_served_and_loads_from_its_own_site_only(console: Site) -> None:
    for path in ("", "market", "consumers", "gaps", "latency"):
        page = console.get(path)
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        loaded = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        assert loaded
        for address in loaded:
            assert address.startswith("/"), address
            assert console.get(address.lstrip("/")).status_code == 200, address


def test_a_page_of_another_name_or_origin_is_not_answered(console: Site) -> None:
    refused = console.get("", host="evil.example")
    assert refused.status_code == 421
    assert "default-src 'none'" in refused.headers["content-security-policy"]
    assert console.get("events?page=now", origin="https://evil.example").status_code == 403
    assert console.get("static/../server.py").status_code == 404
    assert console.get("nothing").status_code == 404


def test_page_now_shows_streams_and_verdict_and_then_updates(console: Site, full_bus: Bus) -> None:
    def is_seen() -> bool:
        whole = console.first("whole", page="now")
        return "trade.SOL_USDC" in whole["rows"] and whole["verdict"]["text"] == "All is well"

    eventually(is_seen, "the streams are shown")
    with console.events(page="now") as events:
        assert next(name for name, _ in events) == "head"
        full_bus.trade(STREAM, "1700000000000-90", trade_id="9", price="55.5")
        result = next(v for name, v in events if name == "more" and STREAM in v["rows"])
    assert "55.5" in result["rows"][STREAM][5]


WORKER = {
    "group": "mine", "consumer": "w", "updated_us": 1, "handled": 0, "failed": 0, "retried": 0,
    "late": 0, "undecodable": 0, "rate": 1.0, "streams": {},
}  # fmt: skip
NUMBERS = ("updated_us", "handled", "failed", "retried", "late", "undecodable", "rate")


def test_statuses_of_another_program_are_passed_over(console: Site, bus: Bus) -> None:
    wrong = [WORKER | {name: what} for name in NUMBERS for what in ("x", None, [], 10**400)]
    took = {"counts": ["x"] * (len(BOUNDS_US) + 1), "sum_us": 1}
    wrong += [WORKER | {"rate": 1e999}, WORKER | {"group": 5}, WORKER | {"latencies": took}]
    for number, status in enumerate(wrong):
        bus.client.hset("consumers:status", f"mine/{number}", json.dumps(status))
    right = WORKER | {"consumer": "right"}
    bus.client.hset("consumers:status", "mine/right", json.dumps(right))
    bus.client.hset("bridge:status", "b", json.dumps({"instance": "b", "updated_us": 1e999}))
    bus.register(STREAM)
    bus.trade(STREAM, "1700000000000-10")
    bus.client.xgroup_create(STREAM, GROUP, "0")

    def workers() -> set[str]:
        groups = console.first("whole", page="consumers").get("groups", [])
        return {worker["name"] for group in groups for worker in group["workers"]}

    eventually(lambda: workers() == {"w", "right"}, "the valid statuses are shown")
    eventually(
        lambda: console.first("whole", page="now")["bridges"] == [],
        "no bridge is shown",
    )


def test_private_streams_are_not_shown(console: Site, bus: Bus) -> None:
    fresh = "trade.BTC_USDC"  # only this test has it: it shows that the console has read this Redis
    bus.register("account.orderUpdate", fresh)
    bus.trade(fresh, "1700000000000-10")
    bus.client.xadd("account.orderUpdate", {"type": "orderFill", "symbol": "SECRET"})
    eventually(
        lambda: fresh in console.first("whole", page="now")["rows"], "the new stream is shown"
    )
    assert list(console.first("whole", page="now")["rows"]) == [fresh]


def test_a_market_shows_book_tape_candles_and_gaps(console: Site, bus: Bus) -> None:
    bus.register(STREAM, "depth.SOL_USDC")
    bus.trade(STREAM, "1700000000000-70", trade_id="7")
    depth = {"type": "depth_snapshot", "symbol": "SOL_USDC", "update_id": "5"}
    more = {"rest_update_id": "", "bids": '[["98","1"]]', "asks": '[["99","2"]]', "event_us": ""}
    end = {"engine_us": "", "received_us": "1700000000000900", "extra": ""}
    bus.client.xadd("depth.SOL_USDC", depth | more | end, id="1700000000000-52")  # type: ignore[arg-type]
    candle = {"start_utc": "2026-09-02T16:44:00", "open": "1", "high": "3", "low": "1"}
    made = candle | {"close": "2", "volume": "7", "complete": "true"}
    bus.client.hset("consumers:{trade.SOL_USDC}:candles:1m", mapping=made)

    def shown() -> Any:
        if console.get("api/past?symbol=SOL_USDC&at=1").status_code != 200:
            return None  # the console has not polled yet
        with console.events(page="market", symbol="SOL_USDC") as events:
            whole = next(v for n, v in events if n == "whole" and not v["is_loading"])
        return whole if whole["book"]["bids"] and whole["candles"] else None

    eventually(shown, "the market is shown")
    whole = shown()
    assert (whole["symbol"], whole["book"]["bids"]) == ("SOL_USDC", [["98", "1"]])
    assert [one["price"] for one in whole["trades"]] == ["99.01"]
    assert whole["candles"]["1m"][0][1:6] == [1.0, 3.0, 1.0, 2.0, 7.0]
    assert whole["candles_source"] == "candles"


def test_a_market_that_could_not_be_read_at_first_is_shown_whole_later_and_no_other_waits_for_it(
    console: Site, bus: Bus
) -> None:
    markets = ("BAD_USDC", "GOOD_USDC")
    foreign = "consumers:{trade.BAD_USDC}:candles:1m"
    bus.client.rpush(foreign, "another program's")
    for market in markets:
        bus.register(f"trade.{market}")
        bus.trade(f"trade.{market}", "1700000000000-70", symbol=market)
    eventually(
        lambda: all(
            console.get(f"api/past?symbol={market}&at=1").status_code == 200 for market in markets
        ),
        "both markets are known",
    )
    with console.events(page="market", symbol="BAD_USDC") as bad:
        assert "WRONGTYPE" in next(value["text"] for name, value in bad if name == "trouble")
        for _ in range(3):
            with console.events(page="market", symbol="GOOD_USDC") as good:
                names = ("whole", "trouble")
                events = ((name, value) for name, value in good if name in names)
                assert next(v for n, v in events if n == "trouble" or not v["is_loading"])["trades"]
        bus.client.delete(foreign)
        whole = next(v for n, v in bad if n == "whole" and not v["is_loading"])
    assert [trade["id"] for trade in whole["trades"]] == ["1700000000000-70"]


def write_depth(bus: Bus) -> None:
    """At 1700000000 s a snapshot, 60 s later a change of its bid, then a gap, then the same
    snapshot.
    """
    times = {"event_us": "", "engine_us": "", "received_us": "1700000000000900", "extra": ""}
    book = {"bids": '[["98","1"]]', "asks": '[["99","2"]]', "rest_update_id": ""}
    snapshot: Any = (
        {"type": "depth_snapshot", "symbol": "SOL_USDC", "update_id": "5"} | book | times
    )
    numbers = {"first_update_id": "6", "last_update_id": "6", "bids": '[["98","7"]]', "asks": "[]"}
    change: Any = {"type": "depth", "symbol": "SOL_USDC"} | numbers | times
    gap: Any = {"type": "gap", "symbol": "SOL_USDC", "from": "7", "to": "9", "cause": "skipped"}
    bus.client.xadd("depth.SOL_USDC", snapshot, id="1700000000000-52")
    bus.client.xadd("depth.SOL_USDC", change, id="1700000060000-60")
    bus.client.xadd("depth.SOL_USDC", gap | times, id="1700000120000-91")
    bus.client.xadd("depth.SOL_USDC", snapshot | {"update_id": "12"}, id="1700000180000-122")


def test_console_market_is_shown_at_an_earlier_time(console: Site, bus: Bus) -> None:
    bus.register(STREAM, "depth.SOL_USDC")
    bus.trade(STREAM, "1700000000000-70", trade_id="7")
    bus.trade(STREAM, "1700000060000-80", trade_id="8", price="55.5")
    write_depth(bus)

    def then(at: str) -> Any:
        return console.get(f"api/past?symbol=SOL_USDC&at={at}").json()

    def book_is_there() -> bool:
        answer = console.get("api/past?symbol=SOL_USDC&at=1700000060000")
        return answer.status_code == 200 and answer.json()["book"] is not None

    eventually(book_is_there, "the console has seen both streams")
    first, second, behind = then("1700000059999"), then("1700000060000"), then("1700000130000")
    assert (first["book"]["bids"], first["book"]["update_id"]) == ([["98", "1"]], 5)
    assert [one["price"] for one in first["trades"]] == ["99.01"]
    assert first["best"] == {"bid": ["98", "1"], "ask": ["99", "2"]}
    assert (second["book"]["bids"], second["since_ms"]) == ([["98", "7"]], 1_700_000_000_000)
    assert [one["price"] for one in second["trades"]] == ["99.01", "55.5"]
    assert (behind["book"]["known"], behind["book"]["bids"]) == (False, [])
    assert "updates 7 to 9 are missing" in behind["book"]["why"]
    assert "some may have come before then" in then("1700000100000")["book"]["why"]
    assert "no entry of depth.SOL_USDC up to then" in then("1600000000000")["book"]["why"]


def test_invalid_time_and_unknown_market_get_one_sentence(console: Site) -> None:
    wrong = console.get("api/past?symbol=SOL_USDC&at=yesterday")
    assert (wrong.status_code, wrong.text) == (400, "give at: a time in ms, as 1795408304204")
    missing = console.get("api/past?symbol=NO_SUCH&at=1700000000000")
    assert (missing.status_code, missing.text) == (404, "no stream of market 'NO_SUCH' is in Redis")


def test_a_dead_letter_is_shown_sent_back_and_dropped(console: Site, bus: Bus) -> None:
    bus.register(STREAM)
    letter = dead_letter(bus.client, STREAM)

    def dead_letters() -> list[str]:
        letters = console.first("whole", page="consumers").get("letters", [])
        return [one["letter"] for one in letters]

    eventually(lambda: dead_letters() == [letter], "the dead letter is shown")
    query = f"group={GROUP}&stream={STREAM}&letter={letter}"
    assert console.get(f"api/letter?{query}").json() == {"price": "99.01"}

    change = {"action": "retry", "group": GROUP, "stream": STREAM, "letters": [letter]}
    assert console.post("api/letters", change, token="wrong").status_code == 401
    assert bus.client.xlen(f"consumers:{{{STREAM}}}:{GROUP}:dead") == 1
    assert console.post("api/letters", change).json() == {"done": 1}
    assert bus.client.xlen(f"consumers:{{{STREAM}}}:{GROUP}:again") == 1
    assert console.post("api/letters", change).json() == {"done": 0}

    bus.client.xgroup_destroy(STREAM, GROUP)
    other = dead_letter(bus.client, STREAM)
    drop = change | {"action": "drop", "letters": [other]}
    assert console.post("api/letters", drop).json() == {"done": 1}
    assert not bus.client.xlen(f"consumers:{{{STREAM}}}:{GROUP}:dead")


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "delete", "group": "g", "stream": STREAM, "letters": ["1-1"]},
        {"action": "drop", "group": "g", "stream": STREAM, "letters": []},
        {"action": "drop", "group": "g", "stream": STREAM, "letters": ["*"]},
        {"action": "drop", "group": "g", "stream": STREAM, "letters": [7]},
        ["drop"],
    ],
)
def test_a_change_with_nonsense_gets_an_error_message(console: Site, wrong: object) -> None:
    answer = console.post("api/letters", wrong)
    assert answer.status_code == 400
    assert "ID" in answer.text


def test_concurrent_requests_for_a_dead_letter_all_succeed(console: Site, bus: Bus) -> None:
    bus.register(STREAM)
    letter = dead_letter(bus.client, STREAM)
    path = f"api/letter?group={GROUP}&stream={STREAM}&letter={letter}"
    eventually(lambda: console.get(path).status_code == 200, "the dead letter's page is served")
    with ThreadPoolExecutor(40) as visitors:
        answers = list(visitors.map(console.get, [path] * 200))
    assert {one.status_code for one in answers} == {200}


def test_console_dead_letter_of_the_account_is_not_served(console: Site, bus: Bus) -> None:
    bus.register("account.orderUpdate", STREAM)
    letter = dead_letter(bus.client, "account.orderUpdate")
    change = {"group": GROUP, "stream": "account.orderUpdate", "letters": [letter]}
    assert console.post("api/letters", change | {"action": "drop"}).json() == {"done": 0}
    query = f"group={GROUP}&stream=account.orderUpdate&letter={letter}"
    assert console.get(f"api/letter?{query}").status_code == 404


def test_without_a_token_the_console_is_read_only(tmp_path: Path, bus: Bus, redis_url: str) -> None:
    bus.register(STREAM)
    letter = dead_letter(bus.client, STREAM)
    before = set(bus.client.keys())
    with running_console(tmp_path, redis_url) as console:

        def page() -> Any:
            return console.first("whole", page="consumers")

        eventually(lambda: page().get("letters"), "the dead letter is shown")
        assert page()["can_change"] is False
        change = {"action": "drop", "group": GROUP, "stream": STREAM, "letters": [letter]}
        answer = console.post("api/letters", change)
    assert (answer.status_code, answer.text) == (
        403,
        "this console is read-only: start it with --token-file",
    )
    assert bus.client.xlen(f"consumers:{{{STREAM}}}:{GROUP}:dead") == 1
    assert set(bus.client.keys()) == before, "the console wrote to Redis"


def test_console_options_set_redis_prefix_and_private_streams(
    tmp_path: Path, bus: Bus, redis_url: str
) -> None:
    bus.register("account.orderUpdate", STREAM)
    options = ("--redis", redis_url, "--private", "--host", "bridge.example")
    with running_console(tmp_path, "redis://127.0.0.1:1/0", *options) as console:

        def shown() -> list[str]:
            return sorted(console.first("whole", page="now")["rows"])

        eventually(lambda: shown() == ["account.orderUpdate", STREAM], "the account is shown")
        assert console.get("", host="bridge.example").status_code == 200
        assert console.get("", host="other.example").status_code == 421


def test_console_without_redis_reports_it_without_the_password(tmp_path: Path) -> None:
    with running_console(tmp_path, "redis://:hush-hush@127.0.0.1:1/0") as console:
        eventually(
            lambda: console.first("head", page="now")["text"].startswith(
                "Redis does not answer: E"
            ),
            "the head reports the outage",
        )
        result = console.beginning(page="now")
        for path in ("events?page=market", "api/past?symbol=SOL_USDC&at=1700000000000"):
            answer = console.get(path)
            sentence = "which markets there are is not known yet: try again"
            assert (answer.status_code, answer.text) == (503, sentence)
    assert result[1]["redis"] == "redis://:***@127.0.0.1:1/0"
    assert result[0]["level"] == "bad"
    assert "hush" not in json.dumps(result)


def test_console_unreadable_data_is_reported_on_its_page_only(
    tmp_path: Path, bus: Bus, redis_server: RedisServer
) -> None:
    bus.register(STREAM)
    bus.bridge()
    rights = ["on", ">secret", "~*", "&*", "+@all", "-xrevrange", "-eval", "-evalsha"]
    bus.client.execute_command("ACL", "SETUSER", "viewer", *rights)
    url = redis_server.url.replace("redis://", "redis://viewer:secret@")
    try:
        with running_console(tmp_path, url) as console, console.events(page="consumers") as events:
            result = next(value for name, value in events if name == "trouble")
    finally:
        bus.client.execute_command("ACL", "DELUSER", "viewer")
    assert "has no permissions to run the 'eval" in result["text"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--listen", "here"],
            "--listen 'here': write an address and a port, as in 127.0.0.1:8088",
        ),
        (["--redis", "redis://:geheim@/x"], "--redis redis://:***@/x: write redis://host:port/db"),
        (["--token-file", "none"], "--token-file names none, which cannot be read: No such file"),
        (["--token-file", "short"], "the token of short must be 16 plain characters or more"),
    ],
)
def test_console_wrong_usage_is_reported_in_one_sentence(
    tmp_path: Path, redis_url: str, arguments: list[str], expected: str
) -> None:
    (tmp_path / "short").write_text("short")
    done = run_bridge(tmp_path, redis_url, "console", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {expected}")
    assert "geheim" not in done.stderr


def test_console_missing_package_is_reported_in_one_sentence(
    tmp_path: Path, redis_url: str
) -> None:
    missing = "raise ModuleNotFoundError('no', name='uvicorn')"
    (tmp_path / "uvicorn.py").write_text(missing)
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "console"],
        cwd=tmp_path,
        env=environment(redis_url, PYTHONPATH=f"{tmp_path}:{ROOT}"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "error: the console needs the package uvicorn: pip install 'backpack-bridge[console]'\n",
    )


def test_console_occupied_port_is_reported_in_one_sentence(
    tmp_path: Path, console: Site, redis_url: str
) -> None:
    port = console.url.rstrip("/").rpartition(":")[2]
    done = run_bridge(tmp_path, redis_url, "console", "--listen", f"127.0.0.1:{port}")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: cannot listen on 127.0.0.1:{port} (Address already in use): give another by "
        "--listen\n",
    )


@pytest.mark.parametrize("command", ["time", "xinfo|stream", "xrevrange", "zrange"])
def test_a_command_that_the_user_may_not_run_is_named_above_every_page(
    command: str, tmp_path: Path, full_bus: Bus, redis_url: str
) -> None:
    refusal = f"Redis refuses us: .*no permissions to run the '{re.escape(command)}' command"
    full_bus.client.execute_command(*without(command))
    with running_console(tmp_path, as_limited(redis_url)) as console:
        eventually(
            lambda: re.search(refusal, console.first("head", page="gaps")["text"]),
            "the head names the command",
        )
