"""Finding a consumer by what was typed: a sample's name, or `my_package.my_module:MyConsumer`.

Imports the module that is asked for; runs nothing.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from bridge.errors import ConfigError
from bridge.runtime.nearest import did_you_mean
from consumers.consumer import Consumer
from consumers.deadletter import place

SAMPLES = {
    "tail": "consumers.handlers.tail:Tail",
    "candles": "consumers.handlers.candles:Candles",
    "book": "consumers.handlers.book:Book",
    "orders": "consumers.handlers.orders:Orders",
    "archive": "consumers.handlers.archive:Archive",
    "alerts": "consumers.handlers.alerts:Alerts",
}
_MODES = ("shared", "ordered")
_MOST_ENTRIES = 10_000  # of some streams at a time: what a worker holds in memory
_LONGEST_WAIT_S = 60
_MOST_ATTEMPTS = 1_000_000
_LONGEST_LIMIT_S = 86_400


def load(name: str) -> type[Consumer]:
    """The consumer's class. Raises ConfigError with what is wrong."""
    where = SAMPLES.get(name, name)
    module_name, colon, class_name = where.partition(":")
    if not colon:
        raise ConfigError(
            f"there is no consumer {name!r}{did_you_mean(name, SAMPLES) or '.'} The samples are "
            f"{', '.join(SAMPLES)}; yours is my_package.my_module:MyConsumer"
        )
    kind = getattr(_module(module_name), class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Consumer)):
        raise ConfigError(
            f"{where}: {class_name} is neither a subclass of consumers.Consumer "
            "there, nor a function with @consumes"
        )
    _check(kind)
    return kind


def options(pairs: Iterable[str]) -> dict[str, str]:
    """`intervals=1m,5m` → name and value."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ConfigError(f"--option {pair!r}: write name=value")
        found[name] = value
    return found


def _module(name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does; the installed script does not
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"cannot import {name}: {error}") from error
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        raise ConfigError(f"cannot import {name}: {error.msg} ({where})") from error
    except ConfigError:
        raise
    except Exception as error:  # whatever a module does when it is imported
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"cannot import {name}: {what} ({place(error)})") from error


def _check(kind: type[Consumer]) -> None:
    name = getattr(kind, "name", "")
    if not name or not all(c.isalnum() or c in "-_." for c in name):
        raise ConfigError(f"{kind.__name__} needs a name of letters, digits, dots and dashes")
    if isinstance(getattr(kind, "streams", ""), str) or not kind.streams:
        raise ConfigError(f'{kind.__name__} needs streams: a tuple of patterns, ("trade.*",)')
    if kind.mode not in _MODES:
        raise ConfigError(f"{kind.__name__}.mode is {kind.mode!r}: write shared or ordered")
    _check_settings(kind)


def _check_settings(kind: type[Consumer]) -> None:
    if kind.poison not in (None, "set aside", "block"):
        raise ConfigError(f"{kind.__name__}.poison is {kind.poison!r}: write set aside or block")
    for setting, value in (("attempts", kind.attempts), ("batch_entries", kind.batch_entries)):
        if type(value) is not int:
            raise ConfigError(f"{kind.__name__}.{setting} is {value!r}: write a whole number")
    for setting, value_s in (
        ("time_limit_s", kind.time_limit_s),
        ("batch_wait_s", kind.batch_wait_s),
    ):
        if type(value_s) not in (int, float):
            raise ConfigError(f"{kind.__name__}.{setting} is {value_s!r}: write seconds")
    for setting, least, most in (
        ("attempts", 1, _MOST_ATTEMPTS),
        ("batch_entries", 1, _MOST_ENTRIES),
        ("time_limit_s", 0.01, _LONGEST_LIMIT_S),
        ("batch_wait_s", 0, _LONGEST_WAIT_S),
    ):
        if not least <= getattr(kind, setting) <= most:
            raise ConfigError(f"{kind.__name__}.{setting}: write {least} to {most}")
