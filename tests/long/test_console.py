"""The console's pages in a browser: content, keyboard, narrow and wide windows, dark and light, and
axe-core's report on accessibility.
"""

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.contract.latency import BOUNDS_US
from docs.browser import Page, browser, find
from tests.integration.view.conftest import Bus
from tests.integration.view.test_console import (
    GROUP,
    STREAM,
    TOKEN,
    Site,
    dead_letter,
    running_console,
    write_depth,
)
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer, running_redis

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(find() is None, reason="needs a Chromium (Debian: apt install chromium)"),
]
PAGES = ("", "market", "consumers", "gaps", "latency")
AXE = "axe-core@4.10.3"
GAP = {
    "type": "gap_record", "symbol": "SOL_USDC", "stream": STREAM, "from": "3", "to": "6",
    "from_us": "", "to_us": "", "cause": "skipped", "recovered": "true", "how": "history",
    "occurrence": "", "event_us": "", "engine_us": "", "extra": "",
}  # fmt: skip


class Shown:
    """A console, its Redis, and a browser with its pages."""

    def __init__(self, site: Site, server: RedisServer, bus: Bus, page: Page) -> None:
        self.site = site
        self.server = server
        self.bus = bus
        self.page = page

    def open(self, name: str) -> Page:
        """Open a page and wait until it has content."""
        self.page.open(self.site.url + name)
        self.page.until("document.getElementById('state').dataset.level !== 'none'")
        return self.page


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("console")
    (folder / "token").write_text(TOKEN)
    with ExitStack() as stack:
        server = stack.enter_context(running_redis())
        bus = Bus(stack.enter_context(server.client()))
        _fill(bus)
        site = stack.enter_context(running_console(folder, server.url, "--token-file", "token"))
        yield Shown(site, server, bus, stack.enter_context(browser()))


def _fill(bus: Bus) -> None:
    bus.register(STREAM, "depth.SOL_USDC", *(f"ticker.M{i}_USDC" for i in range(60)))
    for number in range(5):
        bus.trade(STREAM, f"1700000000000-{number + 1}0", trade_id=str(number + 1))
    bus.client.xadd("bridge:gaps", GAP | {"received_us": str(bus.now_us())})  # type: ignore[arg-type]
    write_depth(bus)
    dead_letter(bus.client, STREAM)
    bus.worker()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from npm; skips the test without it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed (Debian: apt install npm)")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--fetch-retries=1", AXE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"npm could not install axe-core: {done.stderr.strip()[-300:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(shown: Shown, axe: str, name: str, scheme: str) -> None:
    shown.page.size(1280, 900)
    shown.page.prefers(prefers_color_scheme=scheme)
    page = shown.open(name)
    page.run(axe + "; undefined")
    violations: Any = json.loads(
        page.run("axe.run().then((found) => JSON.stringify(found.violations))")
    )
    serious = [
        (one["id"], one["help"], [node["target"] for node in one["nodes"]])
        for one in violations
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_no_wider_than_its_window_and_states_no_error(
    shown: Shown, name: str, width: int
) -> None:
    shown.page.size(width, 900)
    page = shown.open(name)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.errors == []


def test_now_searches_and_sorts_hundreds_of_streams_by_keyboard(shown: Shown) -> None:
    page = shown.open("")
    rows = "document.querySelectorAll('#streams tbody tr')"
    page.until(f"{rows}.length === 62")
    page.press("/")
    for letter in "m5":
        page.press(letter)
    page.until(f"{rows}.length === 11")  # M5, and M50 to M59
    page.press("Escape")
    page.until(f"{rows}.length === 62")
    page.run("document.querySelector('[data-sort=entries]').click()")
    assert page.run(f"{rows}[0].dataset.name") == STREAM
    assert page.run("document.querySelector('[aria-sort=descending]').textContent") == "Entries"


def test_keys_lead_from_page_to_page(shown: Shown) -> None:
    page = shown.open("")
    page.press("4")
    page.until("location.pathname === '/gaps'")
    page.until("document.querySelectorAll('#gap-rows tr').length === 1")
    assert "recovered" in page.run("document.getElementById('gap-rows').textContent")


def test_a_market_shows_its_book_and_trades(shown: Shown) -> None:
    page = shown.open("market")
    page.until("document.querySelectorAll('#tape tr').length === 5")
    assert page.run("document.getElementById('bids').textContent") == "9811"
    assert "1 bids up to 98" in page.run("document.getElementById('depth').ariaLabel")


def test_candles_are_drawn_with_the_gap_in_its_place(shown: Shown) -> None:
    minute_us = shown.bus.now_us() // 60_000_000 * 60_000_000
    start = datetime.fromtimestamp(minute_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    candle = {"start_utc": start, "open": "1", "high": "3", "low": "1", "close": "2"}
    more = {"volume": "7", "complete": "true"}
    shown.bus.client.hset("consumers:{trade.SOL_USDC}:candles:1m", mapping=candle | more)
    shown.bus.client.xadd("bridge:gaps", GAP | {"received_us": str(shown.bus.now_us())})  # type: ignore[arg-type]
    page = shown.open("market?symbol=SOL_USDC")
    page.until(
        "document.getElementById('candles').ariaLabel.startsWith("
        "'1 candles of 1m. The newest: open 1, high 3, low 1, close 2. ')"
    )
    shown.bus.client.hset("consumers:{trade.SOL_USDC}:candles:1m", "close", "2.5")
    page.until("document.getElementById('candles').ariaLabel.includes('close 2.5. ')")
    source = page.run("document.getElementById('candles-source').textContent")
    assert source == "by the consumer candles"
    marks = """import('/static/core.js').then(({ colour }) => {
        const surface = document.querySelector('#candles canvas');
        const seen = surface.getContext('2d').getImageData(0, 11, surface.width, 1).data;
        const [red, green, blue] = colour('good').match(/\\d+/g).map(Number);
        let found = 0;
        for (let i = 0; i < seen.length; i += 4)
            found += seen[i] === red && seen[i + 1] === green && seen[i + 2] === blue;
        return found;
    })"""
    assert 2 <= page.run(marks) < 60


def test_latency_shows_counts_since_the_page_was_opened(shown: Shown) -> None:
    def counted(number: int) -> None:
        counts = [0, number] + [0] * (len(BOUNDS_US) - 1)
        kinds = {"trade": {"counts": counts, "sum_us": 1}}
        shown.bus.bridge(latencies={"engine_to_received": kinds}, started_us=1)

    page = shown.open("latency")
    for number in itertools.count(1):
        counted(number * 100)
        if "p50 ≤ 2.5 ms" in page.run("document.getElementById('received-figures').textContent"):
            break
        assert number < 200
        time.sleep(0.1)  # until the next status
    label = page.run("document.getElementById('received').ariaLabel")
    assert "p50 ≤ 2.5 ms, p90 ≤ 2.5 ms, p99 ≤ 2.5 ms, of " in label


def test_consumers_show_each_groups_lag(shown: Shown) -> None:
    page = shown.open("consumers")
    page.until(f"document.getElementById('lag-legend').textContent.includes('{GROUP}')")
    page.until("document.getElementById('lag').ariaLabel.includes('now behind: ')")
    page.until(f"document.querySelector('[data-group={GROUP}] dl').textContent.includes('lag6')")


def test_group_list_keeps_scroll_and_selection_when_its_card_is_redrawn(shown: Shown) -> None:
    shown.page.size(360, 900)
    page = shown.open("consumers")
    card = f"document.querySelector('[data-group={GROUP}]')"
    page.until(f"{card} !== null")
    page.run(f"{card}.querySelector('summary').click()")
    page.until(f"{card}.querySelector('details').open")
    page.run(f"{card}.querySelector('.table').scrollLeft = 50; {card}.id = 'old'")
    page.until(f"{card}.id !== 'old'")
    assert page.run(f"{card}.querySelector('.table').scrollLeft") == 50
    page.run(
        f"{card}.id = 'old'; getSelection().selectAllChildren({card}.querySelector('td.mono'))"
    )
    page.run(
        "new MutationObserver(() => { window.polls = (window.polls ?? 0) + 1; })"
        ".observe(document.getElementById('lag'), { attributeFilter: ['aria-label'] })"
    )
    page.until("window.polls > 1")
    assert page.run("getSelection().toString()")
    assert page.run(f"{card}.id") == "old"
    page.run("getSelection().removeAllRanges()")


def test_the_slider_goes_through_the_book_by_keyboard_and_back_to_live(shown: Shown) -> None:
    page = shown.open("market?symbol=SOL_USDC&at=1699999999000")
    spoken = "document.getElementById('time').ariaValueText"
    quantity = "document.querySelector('#bids td:nth-child(2)')?.textContent"
    note = "document.getElementById('depth-note').textContent"
    page.until(f"{note}.includes('no entry of depth.SOL_USDC up to then')")
    page.run("document.getElementById('time').focus()")
    page.press("ArrowRight")
    page.until(f"{quantity} === '1'")
    assert page.run(spoken).startswith("2023-11-14 22:13:20 UTC, ")
    assert page.run("document.getElementById('live').ariaPressed") == "false"
    page.press("PageUp")
    page.until(f"{quantity} === '7'")
    page.until("location.search.endsWith('at=1700000060000')")
    page.press("PageUp")
    page.until(f"{note}.includes('updates 7 to 9 are missing')")
    page.press("End")
    page.until(f"{spoken}.startsWith('live')")
    page.until("document.querySelectorAll('#tape tr').length === 5")
    assert page.run("document.getElementById('live').ariaPressed") == "true"
    assert page.run("location.search") == "?symbol=SOL_USDC"


def test_dragged_slider_sends_one_request_at_a_time(shown: Shown) -> None:
    page = shown.open("market?symbol=SOL_USDC&at=1700000000000")
    page.until("document.querySelector('#bids td')")
    drag = """new Promise((done) => {
        const [time, fetched] = [document.getElementById('time'), window.fetch];
        let open = 0, most = 0, count = 0;
        window.fetch = async (...given) => {
            most = Math.max(most, ++open); count += 1;
            try { return await fetched(...given); } finally { open -= 1; }
        };
        for (let second = 1700000000; second <= 1700000060; second++) {
            time.value = second;
            time.dispatchEvent(new Event('input'));
        }
        const timer = setInterval(() => {
            if (document.querySelector('#bids td:nth-child(2)')?.textContent !== '7') return;
            clearInterval(timer);
            done([most, count]);
        }, 20);
    })"""
    assert page.run(drag) == [1, 2]


def test_a_dead_letter_is_retried_with_the_token_only(shown: Shown) -> None:
    page = shown.open("consumers")
    page.until("document.querySelectorAll('#letters tr').length === 1")
    page.run("document.querySelector('#letters .row button').click()")
    page.until("document.getElementById('ask-token').open")
    page.run("document.getElementById('token').value = 'wrong-token-of-16'")
    page.run("document.querySelector('#ask-token .primary').click()")
    page.until("document.getElementById('toast').textContent.includes('token')")
    page.run("document.querySelector('#letters .row button').click()")
    page.until("document.getElementById('ask-token').open")
    page.run(f"document.getElementById('token').value = {json.dumps(TOKEN)}")
    page.run("document.querySelector('#ask-token .primary').click()")
    key = f"consumers:{{{STREAM}}}:{GROUP}:again"
    eventually(lambda: shown.bus.client.xlen(key) == 1, "the dead letter is sent back")
    page.errors.clear()  # the browser reports the HTTP 401 as an error


def test_the_theme_that_was_chosen_is_kept(shown: Shown) -> None:
    page = shown.open("")
    for _ in range(2):
        page.run("document.getElementById('theme').click()")
    page = shown.open("gaps")
    assert page.run("document.documentElement.dataset.theme") == "dark"
    page.run("document.getElementById('theme').click()")
    assert page.run("localStorage.getItem('theme')") == "auto"


def test_streams_of_equal_prefix_are_distinguishable_and_marked_on_a_phone(
    shown: Shown,
) -> None:
    shown.bus.register("bookTicker.BTC_USDC", "bookTicker.BTC_USDC_PERP")
    shown.bus.bridge(streams={"bookTicker.BTC_USDC_PERP": {"gaps": 1}})
    shown.page.size(360, 900)
    page = shown.open("")
    name = "document.querySelector('[data-name=\"bookTicker.BTC_USDC_PERP\"] th')"
    page.until(f"{name}?.innerText === 'bookTicker.BTC_USDC_PERP\\n1 gap'")
    assert page.run(f"{name}.scrollWidth <= {name}.clientWidth")


def test_gaps_are_chosen_by_outcome_and_the_page_states_where_not_all_streams_are_drawn(
    shown: Shown,
) -> None:
    now_us = str(shown.bus.now_us())
    for number in range(41):
        gap = GAP | {"stream": f"ticker.G{number}_USDC", "recovered": "false", "how": ""}
        shown.bus.client.xadd("bridge:gaps", gap | {"received_us": now_us})  # type: ignore[arg-type]
    page = shown.open("gaps")
    summary = "document.getElementById('gap-summary').textContent"
    rows = "document.querySelectorAll('#gap-rows tr')"
    page.until(f"{summary}.includes('41 missing')")
    assert page.run(summary).endswith("Drawn: the 40 of 42 streams with the newest.")
    page.run("document.querySelector('[data-kind=missing]').click()")
    assert page.run(f"{rows}.length") == 41
    page.run("document.querySelector('[data-kind=recovered]').click()")
    assert "recovered" in page.run(f"{rows}[0].textContent")
    assert STREAM in page.run(f"{rows}[0].textContent")


LONG = "<img src=x onerror=alert(1)>" + "W" * 300
FAR_US = 9 * 10**18  # beyond the dates that a browser can show


def test_texts_and_times_of_another_program_break_no_page(shown: Shown) -> None:
    shown.bus.client.xgroup_create(STREAM, LONG, "0")
    dead_letter(shown.bus.client, "trade.ETH_USDC", "other", error=LONG, attempts=LONG)
    shown.bus.register("trade.ETH_USDC")
    far = GAP | {"received_us": str(FAR_US), "stream": "trade.FAR_USDC"}
    shown.bus.client.xadd("bridge:gaps", far)  # type: ignore[arg-type]
    for width in (360, 1280):
        shown.bus.bridge(LONG, connections=[{"name": LONG, "trouble": LONG}])
        shown.page.size(width, 900)
        for name, part in (
            ("", LONG),
            ("consumers", LONG),
            ("gaps", f"{FAR_US}"),
            ("market", "98"),
        ):
            page = shown.open(name)
            page.until(f"document.getElementById('main').textContent.includes({json.dumps(part)})")
            assert page.run("document.documentElement.scrollWidth") <= width, (name, width)
            assert page.errors == [], (name, width)


def test_redis_unavailable_turns_the_page_red_at_once_and_recovers(shown: Shown) -> None:
    shown.bus.client.delete("bridge:status")
    shown.bus.bridge()
    page = shown.open("")
    page.until("['good', 'warning'].includes(document.getElementById('verdict').dataset.level)")
    state = "document.getElementById('state-text').textContent"
    shown.server.pause()
    try:
        page.until(f"{state}.startsWith('Redis does not answer')")
        assert page.run("document.getElementById('verdict').dataset.level") == "bad"
    finally:
        shown.server.resume()
    page.until(f"!{state}.startsWith('Redis does not answer')")


def test_a_stopped_console_is_reported_by_the_page_itself(tmp_path: Path, shown: Shown) -> None:
    with running_console(tmp_path, shown.server.url) as gone:
        shown.page.open(gone.url)
        shown.page.until("document.getElementById('state').dataset.level !== 'none'")
    shown.page.until(
        "document.getElementById('state-text').textContent === 'The console does not answer'"
    )
    shown.page.errors.clear()
