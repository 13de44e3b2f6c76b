"""Texts for a terminal: one line each, control characters escaped, without secrets."""

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from bridge.runtime.masking import hide
from bridge.runtime.terminal import echo, echo_json, new_console, printable

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SOL_USDC 98.96 × 1,5 …", "SOL_USDC 98.96 × 1,5 …"),
        ("\x1b]0;X\x07", r"\u001b]0;X\u0007"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b2J\x7f\x00", r"\u009b2J\u007f\u0000"),
        ("gnp\u202eexe", r"gnp\u202eexe"),
        ("\u2028 \ud800 \U000e0041", r"\u2028 \ud800 \udb40\udc41"),
    ],
)
def test_unprintable_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_every_text_becomes_one_printable_line(text: str) -> None:
    assert printable(text).isprintable()


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_on_a_line_stays_the_same_json(value: object) -> None:
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


def test_echo_prints_one_line_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    echo("cannot read redis://:pw@h\n\x1b[2Jerror: forged")
    assert capsys.readouterr().out == "cannot read redis://:***@h\\n\\u001b[2Jerror: forged\n"


def test_a_hidden_secret_is_in_no_line_and_leaves_json_its_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hide(["error"])
    echo("Redis refuses: error")
    echo_json({"error": ["an error", 1, None]})
    assert capsys.readouterr().out == 'Redis refuses: ***\n{"error": ["an ***", 1, null]}\n'


def test_texts_of_a_table_are_no_markup_and_no_emoji() -> None:
    console = new_console(80)
    console.file = io.StringIO()
    table = Table("name")
    table.add_row("[red]:bomb:[/red]")
    console.print(table)
    assert "[red]:bomb:[/red]" in console.file.getvalue()


def test_no_program_prints_but_through_the_terminal_module() -> None:
    ways = re.compile(r"typer\.echo\(|\bprint\(|\bConsole\(|stdout\.write\(")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in ("bridge", "consumers", "demo")
        for path in sorted((ROOT / package).rglob("*.py"))
        for line in _code(path)
        if ways.search(line) and "printable(" not in line and ".print(" not in line
    ]
    assert found == ['consumers/handlers/tail.py: sys.stdout.write(shown + "\\n")']


def _code(path: Path) -> list[str]:
    """The lines of a file without docstrings; no lines of the terminal module itself."""
    text = re.sub(r'"""[\s\S]*?"""', "", path.read_text("utf-8"))
    return [] if path.name == "terminal.py" else text.splitlines()
