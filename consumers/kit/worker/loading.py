"""Loads a consumer class by name: a sample's name, or `my_package.my_module:MyConsumer`.

Imports the named module and checks the class; runs nothing.
"""

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError
from bridge.runtime.nearest import did_you_mean
from consumers.kit.api.consumer import SETTINGS, Consumer
from consumers.kit.handling.failure import source_line

SAMPLES = {
    "tail": "consumers.handlers.tail:Tail",
    "candles": "consumers.handlers.candles:Candles",
    "book": "consumers.handlers.book:Book",
    "orders": "consumers.handlers.orders:Orders",
    "archive": "consumers.handlers.archive:Archive",
    "alerts": "consumers.handlers.alerts:Alerts",
}
_MODES = ("shared", "ordered", "joined")
_MOST_ENTRIES = 10_000  # per stream and read: bounds a worker's memory
_LONGEST_WAIT_S = 60
_MOST_ATTEMPTS = 1_000_000
_LONGEST_LIMIT_S = 86_400
_MOST_AT_ONCE = 1000
_LEAST_RATE = 0.1  # calls per second; a stop waits for the next call
_MISSPELT = 0.8  # similarity from which a name counts as a misspelt setting: `attempt`


def load(name: str) -> type[Consumer]:
    """The consumer's class. Raises ConfigError if it cannot be imported, or is not valid."""
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
            f"{where}: {class_name} is neither a subclass of backpack_bridge.Consumer "
            "there, nor a function with @consumes"
        )
    _check(kind)
    return kind


def configured(kind: type[Consumer], group: str, given: Mapping[str, Any]) -> type[Consumer]:
    """The consumer with the settings of config.yaml for its group. Raises ConfigError for invalid
    settings."""
    if not given:
        return kind
    members = {"__doc__": kind.__doc__, "__module__": kind.__module__, **given}
    made = type(kind.__name__, (kind,), members)
    try:
        _check(made)
    except ConfigError as error:
        raise ConfigError(f"consumers.{group} of the configuration: {error}") from None
    return made


def options(pairs: Iterable[str]) -> dict[str, str]:
    """Name → value, from texts such as `intervals=1m,5m`. Raises ConfigError for another form."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ConfigError(f"--option {pair!r}: write name=value")
        values[name] = value
    return values


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
    except ConfigError as error:  # a decorator of the kit refuses what it was given
        raise ConfigError(f"{error} ({source_line(error)})") from error
    except Exception as error:  # a module may do anything while it is imported
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"cannot import {name}: {what} ({source_line(error)})") from error


def _check(kind: type[Consumer]) -> None:
    _check_names(kind)
    name = getattr(kind, "name", "")
    if not isinstance(name, str) or not name or not all(c.isalnum() or c in "-_." for c in name):
        raise ConfigError(f"{kind.__name__} needs a name of letters, digits, dots and dashes")
    streams = getattr(kind, "streams", ())
    is_list = isinstance(streams, tuple | list | set | frozenset)
    if not is_list or not streams or not all(one and isinstance(one, str) for one in streams):
        raise ConfigError(
            f'{kind.__name__} needs streams: in the class, a tuple of patterns, ("trade.*",)'
        )
    if kind.mode not in _MODES:
        raise ConfigError(f"{kind.__name__}.mode is {kind.mode!r}: write shared, ordered or joined")
    if kind.mode == "joined" and (
        kind.on_failure == "dead_letter" or kind.on_undecodable == "dead_letter"
    ):
        raise ConfigError(
            f"{kind.__name__}: a joined consumer makes no dead letters, for its state depends on "
            "the order: leave on_failure and on_undecodable out, and catch what may be passed over"
        )
    _check_settings(kind)


def _check_names(kind: type[Consumer]) -> None:
    """Raise ConfigError for an attribute whose name is nearly that of a setting."""
    known = dir(Consumer) + list(SETTINGS)
    for base in kind.__mro__[: kind.__mro__.index(Consumer)]:
        for name, value in vars(base).items():
            is_plain = isinstance(value, str | int | float | tuple | list | None)
            if name.startswith("_") or name in known or not is_plain:
                continue
            if get_close_matches(name, SETTINGS, n=1, cutoff=_MISSPELT):
                hint = did_you_mean(name, SETTINGS)
                raise ConfigError(f"{kind.__name__}.{name} is no setting of a consumer{hint}")


def _check_settings(kind: type[Consumer]) -> None:
    if kind.on_failure not in (None, "dead_letter", "block"):
        raise ConfigError(
            f"{kind.__name__}.on_failure is {kind.on_failure!r}: write dead_letter or block"
        )
    if kind.on_undecodable not in ("skip", "dead_letter"):
        raise ConfigError(
            f"{kind.__name__}.on_undecodable is {kind.on_undecodable!r}: write skip or dead_letter"
        )
    for setting, value in (
        ("attempts", kind.attempts),
        ("batch_entries", kind.batch_entries),
        ("concurrency", kind.concurrency),
    ):
        if type(value) is not int:
            raise ConfigError(f"{kind.__name__}.{setting} is {value!r}: write a whole number")
    for setting, value_s in (
        ("time_limit_s", kind.time_limit_s),
        ("batch_wait_s", kind.batch_wait_s),
        ("join_wait_s", kind.join_wait_s),
    ):
        if type(value_s) not in (int, float):
            raise ConfigError(f"{kind.__name__}.{setting} is {value_s!r}: write seconds")
    for setting, least, most in (
        ("attempts", 1, _MOST_ATTEMPTS),
        ("batch_entries", 1, _MOST_ENTRIES),
        ("time_limit_s", 0.01, _LONGEST_LIMIT_S),
        ("batch_wait_s", 0, _LONGEST_WAIT_S),
        ("join_wait_s", 0, _LONGEST_WAIT_S),
        ("concurrency", 1, _MOST_AT_ONCE),
    ):
        if not least <= getattr(kind, setting) <= most:
            raise ConfigError(f"{kind.__name__}.{setting}: write {least} to {most}")
    rate = kind.rate_limit
    if rate is not None and not (type(rate) in (int, float) and _LEAST_RATE <= rate < inf):
        raise ConfigError(
            f"{kind.__name__}.rate_limit is {rate!r}: write calls a second, at least {_LEAST_RATE}"
        )
