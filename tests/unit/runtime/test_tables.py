"""Tables on narrow terminals: no value is cut, and columns left out are named."""

import io

import pytest
from rich.console import Console

from bridge.runtime.tables import Width, table

COLUMNS = [
    ("stream", Width.NAME), ("entries", Width.NUMBER), ("published", Width.NUMBER),
    ("late", Width.NUMBER), ("age", Width.NUMBER), ("marks", Width.TEXT),
]  # fmt: skip
ROWS = [
    ["stockIndicativeQuote.NVDA", "1,234,567", "1,234,560", "0", "0.1s", "12 gaps, 3 overflowed"],
    ["trade.SOL_USDC_PERP", "7", "7", "0", "12m", ""],
]


def shown(width: int, rows: list[list[str]] = ROWS) -> str:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(
        table("", COLUMNS, rows, room=width, keep=("entries",), spare=("published", "age"))
    )
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_but_empty_columns_are_shown_if_there_is_room() -> None:
    lines = shown(100).splitlines()
    assert lines[0].split() == ["stream", "entries", "published", "age", "marks"]
    assert lines[2].split("   ") == [
        " stockIndicativeQuote.NVDA", "1,234,567", "1,234,560", "0.1s", "12 gaps, 3 overflowed ",
    ]  # fmt: skip
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("width", "left_out"), [(80, []), (72, ["published"]), (60, ["published", "age"])]
)
def test_columns_are_left_out_and_named_and_numbers_whole_if_there_is_little_room(
    width: int, left_out: list[str]
) -> None:
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for cell in ("stockIndicativeQuote.NVDA", "1,234,567", "trade.SOL_USDC_PERP"):
        assert cell in text
    named = f"left out, for want of room: {', '.join(left_out)}"
    assert (named in text) is bool(left_out)
    for heading in ("published", "age"):
        assert (heading in text.splitlines()[0]) is (heading not in left_out)


def test_a_name_is_broken_but_no_number_if_no_column_can_be_left_out() -> None:
    text = shown(44)
    assert "1,234,567" in text
    assert "…" not in text
    first = [line.split()[0] for line in text.splitlines()[2:] if line[1] != " "]
    assert "".join(first).startswith("stockIndicativeQuote.NVDA")
