"""The pages of the live view at 80 × 24: a cut text is marked, and no number is cut."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from bridge.view.browse import Browse, Page
from bridge.view.facts import Followed
from bridge.view.pages import Shown, page
from bridge.view.screen import clipped
from tests.integration.view.conftest import TRADE
from tests.unit.view.test_screen import stream, view_model

MANY = tuple(stream(f"trade.M{number:02}_USDC") for number in range(40))


def painted(**given: Any) -> list[str]:
    whole: dict[str, Any] = {
        "view_model": view_model(), "before": None, "where": "redis://r:6379/0", "browse": Browse(),
        "entries": (), "age_s": 0.4, "trouble": "",
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=80, height=24, legacy_windows=False)
    console.print(page(Shown(**(whole | given)), 80, 24, (" q leaves",)), end="")
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("place", [0, 20, 39])
def test_a_long_list_is_scrolled_to_the_marked_stream_and_reports_it(place: int) -> None:
    lines = painted(view_model=view_model(streams=MANY), browse=Browse(place=place))
    assert len(lines) <= 24
    assert any(line.startswith(f" trade.M{place:02}_USDC") for line in lines)
    assert any(re.fullmatch(r" \d+ to \d+ of 40 streams", one) for one in lines)


def test_a_search_without_a_result_reports_it() -> None:
    assert " no stream has 'xyz' in its name" in painted(browse=Browse(search="xyz"))


def test_the_head_reports_at_once_that_redis_is_unavailable_and_the_age_of_the_data() -> None:
    first = painted(trouble="Connection refused", age_s=3.2)[0]
    assert first == (" Redis at redis://r:6379/0 does not answer: this picture is 3.2s old …")
    assert (
        "no picture yet (Connection refused)"
        in painted(trouble="Connection refused", view_model=None)[0]
    )
    assert painted()[0] == " 0.4s old   ? keys"


def test_a_paused_view_is_marked_as_paused_and_not_red() -> None:
    first = painted(browse=Browse(is_paused=True), trouble="late", age_s=12)[0]
    assert first.startswith(" PAUSED, 12s ago")


def test_a_stream_is_shown_with_its_newest_entries() -> None:
    entries = [Followed("trade.SOL_USDC", f"1700000000{at}00-70", TRADE) for at in (2, 1)]
    browse = Browse(page=Page.STREAM, stream="trade.SOL_USDC")
    lines = painted(browse=browse, entries=entries)
    assert lines[1] == " trade.SOL_USDC"
    assert "42.1/s  1,204 entries" in lines[2]
    assert [line for line in lines if line.endswith("sell 1.50 @ 99.01")] != []


def test_an_entry_is_shown_with_every_field_whole() -> None:
    long = dict(TRADE) | {"extra": "x" * 300}
    browse = Browse(page=Page.ENTRY, stream="trade.SOL_USDC", entry_id="1-70")
    lines = painted(browse=browse, entries=[Followed("trade.SOL_USDC", "1-70", long)])
    text = "\n".join(lines)
    assert all(re.search(f"^ {name} ", text, re.MULTILINE) for name in TRADE if TRADE[name])
    assert text.count("x") >= 300
    assert " python -m bridge explain trade.SOL_USDC 1-70" in lines


def test_keys_fit_on_a_screen_of_80_columns() -> None:
    lines = painted(browse=Browse(page=Page.KEYS))
    assert len(lines) <= 24
    assert any(line.startswith("  q  Ctrl-C") for line in lines)
    assert not any(line and not line.startswith(" ") for line in lines)


@pytest.mark.parametrize("width", range(1, 30))
def test_a_line_is_cut_between_words_only(width: int) -> None:
    line = "sell 12.77 @ 98.89 × 1044880.0743"
    kept = clipped(line, width)
    assert len(kept) <= max(width, 1)
    assert kept == "…" or kept.removesuffix(" …").split() == line.split()[: len(kept.split()) - 1]


def test_numbers_of_any_length_are_whole() -> None:
    wide = stream("trade.SOL_USDC", rate=1_234_567.0, entries=9_999_999)
    text = "\n".join(painted(view_model=view_model(streams=(wide,))))
    assert "1,234,567" in text
    assert "9,999,999" in text
