"""Log lines: one event per line as JSON or text, also of libraries, without secrets."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bridge.runtime.logs import MAX_TEXT, Redaction, setup_logs


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_event_with_its_fields_on_a_line() -> None:
    out = io.StringIO()
    setup_logs("info", "json", stream=out)
    structlog.get_logger().info("stream_confirmed", stream="trade.SOL_USDC", after_s=0.5)
    (line,) = lines(out)
    timestamp = str(line.pop("timestamp"))
    assert line == {
        "event": "stream_confirmed",
        "level": "info",
        "stream": "trade.SOL_USDC",
        "after_s": 0.5,
    }
    assert timestamp.endswith("Z")


def test_auto_is_json_where_there_is_no_terminal_and_console_where_there_is() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, terminal = io.StringIO(), Terminal()
    setup_logs("info", "auto", stream=plain)
    structlog.get_logger().info("started")
    setup_logs("info", "auto", stream=terminal)
    structlog.get_logger().info("started")
    assert plain.getvalue().startswith("{")
    assert "\x1b[" in terminal.getvalue()
    assert "started" in terminal.getvalue()


def test_console_without_a_terminal_has_no_colours() -> None:
    out = io.StringIO()
    setup_logs("info", "console", stream=out)
    structlog.get_logger().warning("redis_unavailable", for_s=3)
    assert "\x1b[" not in out.getvalue()
    assert "redis_unavailable" in out.getvalue()
    assert "for_s=3" in out.getvalue()


def test_a_very_long_text_is_cut_after_it_was_masked() -> None:
    out = io.StringIO()
    setup_logs("info", "json", ["sesame"], stream=out)
    structlog.get_logger().info("refused", reason="x" * (MAX_TEXT - 3) + "sesame" + "y" * 10**6)
    (line,) = lines(out)
    assert line["reason"] == "x" * (MAX_TEXT - 3) + "***… (1,016,384 characters)"


def test_the_level_is_kept() -> None:
    out = io.StringIO()
    setup_logs("warning", "json", stream=out)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(out)] == ["loud"]


def test_records_of_libraries_have_the_same_form_from_warning_up() -> None:
    out = io.StringIO()
    setup_logs("debug", "json", stream=out)
    logging.getLogger("websockets.client").info("connection open")
    logging.getLogger("httpx2").warning("slow: %s", "https://u:pw@h/")
    (line,) = lines(out)
    assert (line["level"], line["event"]) == ("warning", "slow: https://u:***@h/")


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_is_in_any_part_of_an_event(form: str) -> None:
    out = io.StringIO()
    setup_logs("info", form, secrets=["s3cret-key"], stream=out)  # type: ignore[arg-type]
    log = structlog.get_logger()
    log.info("s3cret-key", url="redis://:s3cret-key@h:1/0", deep={"a": ["s3cret-key", {"b": 1}]})
    log.info("object", of=ValueError("s3cret-key"))
    error = RuntimeError("s3cret-key in redis://u:p4ssword@h:1/0")
    log.error("failed", exc_info=error)
    logging.getLogger("asyncio").error("s3cret-key", exc_info=ValueError("s3cret-key"))
    assert "s3cret-key" not in out.getvalue()
    assert "p4ssword" not in out.getvalue()
    assert "RuntimeError" in out.getvalue()


def test_a_password_that_is_a_common_word_leaves_fixed_names_unmasked() -> None:
    out = io.StringIO()
    setup_logs("info", "json", secrets=["redis", "info"], stream=out)
    structlog.get_logger().info("redis_unavailable", reason="unknown command, args: 'redis'")
    (line,) = lines(out)
    assert (line["level"], line["event"]) == ("info", "redis_unavailable")
    assert line["reason"] == "unknown command, args: '***'"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=10,
)


@given(VALUES)
def test_redaction_accepts_any_value_and_returns_json(value: object) -> None:
    json.dumps(Redaction(["secret"])(None, "info", {"event": "x", "value": value}))


def test_a_line_on_the_console_stays_one_line_for_any_text() -> None:
    out = io.StringIO()
    setup_logs("info", "console", stream=out)
    text = "SOL\r\n2026-01-01 [info] forged \x1b]0;X\x07"
    structlog.get_logger().info("stream_refused", stream=text, of=[text])
    logging.getLogger("websockets").warning(text)
    assert all(line.isprintable() for line in out.getvalue().splitlines())
    assert len(out.getvalue().splitlines()) == 2


def test_a_traceback_on_the_console_is_indented_and_escaped() -> None:
    out = io.StringIO()
    setup_logs("info", "console", stream=out)

    def fail() -> None:
        raise ValueError("bad\nforged_event \x1b[2J")

    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("handler_failed")
    head, *rest = out.getvalue().splitlines()
    assert "handler_failed" in head
    assert all(line.isprintable() and line.startswith("  ") for line in rest if line)
    assert any("forged_event" in line for line in rest)
