"""Sets up logging once: fixed event names with fields, to stderr, for people or for machines.

Libraries' own loggers use the same handler, from WARNING up. Secrets are masked in every line as
the last resort; the first is not to log them. Knows no event by name.
"""

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from bridge.runtime.masking import masked_text
from bridge.runtime.terminal import printable

LIBRARIES = ("asyncio", "httpcore2", "httpx2", "redis", "websockets")


_FIXED_NAME = re.compile(r"[a-z_]+")
MAX_TEXT = 16_384  # characters of one value in a line


class Redaction:
    """A structlog processor that masks given secrets and passwords in URLs, at any depth, and
    truncates long values.

    A password may be a common word: level, time and the fixed event name are never masked.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(secrets)

    def __call__(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        return {
            key: value if _is_ours(key, value) else self._clean(value)
            for key, value in event.items()
        }

    def _clean(self, value: object) -> Any:
        if isinstance(value, str):
            return _cut(masked_text(value, self._secrets))
        if isinstance(value, Mapping):
            return {self._clean(key): self._clean(below) for key, below in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(below) for below in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return _cut(masked_text(str(value), self._secrets))


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}… ({len(text):,} characters)"


def _is_ours(key: str, value: object) -> bool:
    is_name = isinstance(value, str) and _FIXED_NAME.fullmatch(value) is not None
    return key in ("level", "timestamp") or (key == "event" and is_name)


def setup_logs(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "console", "json"] = "auto",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send all logging to `stream` (stderr). `auto` is console on a terminal, json elsewhere."""
    stream = stream or sys.stderr
    on_terminal = stream.isatty()
    console = form == "console" or (form == "auto" and on_terminal)
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                Redaction(secrets),
                *_rendering(console=console, colors=on_terminal),
            ],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


def _escaped(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escapes control characters, so that outside text cannot break a line or affect the terminal.
    A traceback is indented, so that no line of it looks like a log line.
    """
    shown = {key: printable(v) if isinstance(v, str) else v for key, v in event.items()}
    for name in ("exception", "stack"):
        if isinstance(text := event.get(name), str):
            shown[name] = "\n".join("  " + printable(line) for line in text.splitlines())
    return shown


def _rendering(*, console: bool, colors: bool) -> list[Processor]:
    if not console:
        return [structlog.processors.JSONRenderer()]
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )
    return [_escaped, renderer]
