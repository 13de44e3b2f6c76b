"""Routing of events to a consumer's methods, by the handler's name and its annotation (pure).

`on_trade` gets trades. `on_event`, `on_batch` and functions get the events named in the annotation
of their first parameter: `Delivery[Trade]`, `Delivery[Trade | Gap]`, `list[Delivery[Trade]]`; all
events if it names none. A second parameter, whatever its name, receives the `Results`.
"""

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from bridge.contract.entry import MODELS
from bridge.contract.events import Event
from bridge.contract.stream_types import OWN_STREAMS, STREAM_SPECS
from bridge.errors import ConfigError
from bridge.runtime.nearest import did_you_mean
from consumers.kit.api.timers import timers_of

CATCH_ALL = "on_event"
BATCH = "on_batch"
NOT_HANDLERS = frozenset({"on_missed", "on_failure", "on_undecodable"})  # a hook and settings


class _Hook(NamedTuple):
    """How the kit calls a hook: positional parameters, keyword parameters, expected signature."""

    by_place: int
    by_name: tuple[str, ...]
    written: str


_HOOKS = {
    "on_missed": _Hook(1, (), "on_missed(self, missed)"),
    "load": _Hook(0, (), "load(self)"),
    "write": _Hook(1, (), "write(self, results)"),
    "due": _Hook(0, ("stopping",), "due(self, *, stopping)"),
    "made": _Hook(0, (), "made(self)"),
    "lifespan": _Hook(0, (), "async def lifespan(self), with one yield"),
    "filter": _Hook(2, (), "filter(self, stream, fields)"),
    "key": _Hook(1, (), "key(self, delivery)"),
    "joined_by": _Hook(1, (), "joined_by(self, stream)"),
}
_PLAIN = {
    "made": "it is called while handlers wait",
    "filter": "it is called for each entry",
    "key": "it is called for each entry",
    "joined_by": "it says which streams belong together",
}
_MODELS_IN: Mapping[str, Sequence[type[Event]]] = {
    **{str(kind): spec.models for kind, spec in STREAM_SPECS.items()},
    **{own.key: (own.model,) for own in OWN_STREAMS},
}
_OPTIONAL = ("filter", "key")  # may be None
_TIMER = _Hook(1, (), "one parameter, the tick, or two, the tick and the results")
_HANDLER = "one parameter, the delivery, or two, the delivery and the results"
_BY_PLACE = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def handlers_of(kind: type[Any]) -> Mapping[type[Event], str]:
    """The method name for each event class. Raises ConfigError for a handler of no event, or if
    there is no handler."""
    by_method = {_method(model): model for model in MODELS}
    present = [name for name in dir(kind) if name.startswith("on_") and name not in NOT_HANDLERS]
    for name in present:
        if name not in by_method and name not in (CATCH_ALL, BATCH):
            hint = did_you_mean(name, by_method)
            raise ConfigError(f"{kind.__name__}.{name} is the handler of no event{hint}")
    if not present:
        raise ConfigError(f"{kind.__name__} has no handler: write on_trade, or on_event for all")
    if BATCH in present:
        if len(present) > 1:
            others = ", ".join(name for name in present if name != BATCH)
            raise ConfigError(
                f"{kind.__name__} has on_batch and {others}: on_batch gets all events in their "
                "order, so it stands alone"
            )
        return dict.fromkeys(events_wanted(getattr(kind, BATCH)), BATCH)
    handlers = {model: name for name, model in by_method.items() if name in present}
    if CATCH_ALL in present:
        handlers = dict.fromkeys(events_wanted(getattr(kind, CATCH_ALL)), CATCH_ALL) | handlers
    return handlers


def check_streams(kind: type[Any], patterns: Iterable[str]) -> None:
    """Raise ConfigError if no stream of these names or patterns has an event with a handler."""
    handled = handlers_of(kind)
    heads = [re.split(r"[*?\[]", pattern, maxsplit=1)[0] for pattern in patterns]
    selected = [
        models
        for name, models in _MODELS_IN.items()
        if any(f"{name}.".startswith(head) or head.startswith(f"{name}.") for head in heads)
    ]
    if selected and handled.keys().isdisjoint(chain.from_iterable(selected)):
        raise ConfigError(
            f"{kind.__name__} has no handler for any event of {', '.join(patterns)}: correct its "
            "streams, or write a handler for one of their events"
        )


def takes_results(handler: Callable[..., Any]) -> bool:
    """Whether a bound handler has a second positional parameter, for the results."""
    return sum(one.kind in _BY_PLACE for one in _parameters(handler)) > 1


def name_of(function: object) -> str:
    """The qualified name of a function, for messages; else a repr of at most 100 characters."""
    plain = _plain(function)
    return getattr(plain, "__qualname__", "") or repr(plain)[:100]


def _plain(function: object) -> Any:
    """The underlying function: unwraps partials, and takes `__call__` of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type) or not callable(function) or inspect.isroutine(function):
        return function
    return type(function).__call__.__get__(function)


def check_calls(consumer: object) -> None:
    """Raise ConfigError for a handler or hook of this object that does not accept the kit's
    arguments, or whose call would run nothing (a generator)."""
    where = type(consumer).__name__
    timers = timers_of(type(consumer))
    for name in sorted({*handlers_of(type(consumer)).values(), *_HOOKS, *timers}):
        call = getattr(consumer, name, None)
        if call is None and name in _OPTIONAL:
            continue
        if not callable(call):
            raise ConfigError(f"{where}.{name} is no function")
        runs = _plain(call)
        if name == "lifespan":
            if inspect.isgeneratorfunction(runs) or inspect.iscoroutinefunction(runs):
                raise ConfigError(f"{where}.lifespan: write {_HOOKS[name].written}")
        elif inspect.isgeneratorfunction(runs) or inspect.isasyncgenfunction(runs):
            raise ConfigError(
                f"{where}.{name} has a yield in it, so calling it would run nothing of it: "
                "return nothing, and write to the results"
            )
        if name in _PLAIN and inspect.iscoroutinefunction(runs):
            raise ConfigError(f"{where}.{name} is async: {_PLAIN[name]}; write def")
        if name in timers and name.startswith("on_"):
            raise ConfigError(f"{where}.{name} is a timer, and named like a handler: rename it")
        _check_signature(f"{where}.{name}", call, _TIMER if name in timers else _HOOKS.get(name))


def _check_signature(where: str, call: Callable[..., Any], hook: "_Hook | None") -> None:
    by_place, by_name, written = hook or _Hook(1, (), _HANDLER)
    try:
        signature = inspect.signature(call)
        if hook is None or hook is _TIMER:
            by_place = 2 if takes_results(call) else 1
        signature.bind(*[None] * by_place, **dict.fromkeys(by_name))
    except (TypeError, ValueError) as error:  # ValueError: a method without self
        raise ConfigError(f"{where} cannot be called, {error}: write {written}") from None


def check_concurrency(consumer: object, concurrency: int) -> None:
    """Raise ConfigError if `concurrency` is not 1 and a handler is sync or takes a list."""
    names = set(handlers_of(type(consumer)).values())
    if concurrency == 1:
        return
    for name in sorted(names):
        where = f"{type(consumer).__name__}.{name}"
        if name == BATCH:
            raise ConfigError(f"{where} gets all of a batch in one call: concurrency is not for it")
        if not inspect.iscoroutinefunction(_plain(getattr(consumer, name))):
            raise ConfigError(
                f"{where} is a plain function, and concurrency is {concurrency}: write async def"
            )


def wants_list(function: Callable[..., Any]) -> bool:
    """Whether the annotation of its first parameter is a batch: `list[Delivery[…]]`."""
    annotation = _annotation(function)
    return annotation is list or get_origin(annotation) in (list, Sequence)


def events_wanted(function: Callable[..., Any]) -> Sequence[type[Event]]:
    """The event classes named in the annotation of its first parameter; all if it names none.
    Raises ConfigError for an annotation that cannot be read."""
    named = _events_in(_annotation(function))
    if not named or Event in named:
        return MODELS
    return [model for model in MODELS if issubclass(model, tuple(named))]


def _parameters(function: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:  # no function, or one in C without a signature
        raise ConfigError(f"{name_of(function)} cannot be a handler: {error}") from None


def _annotation(function: Callable[..., Any]) -> Any:
    parameters = [one.name for one in _parameters(function) if one.name != "self"]
    if not parameters:
        raise ConfigError(f"{name_of(function)} needs a parameter: the delivery")
    # Annotations may be text (`from __future__ import annotations`): they are evaluated here, so
    # all names in them must exist at run time.
    try:
        return get_type_hints(_plain(function)).get(parameters[0])
    except Exception as error:  # noqa: BLE001 - its text may be any expression
        hint = "import that name at the top of the module (not under TYPE_CHECKING)"
        hint = hint if isinstance(error, NameError) else "write Delivery[Trade], say"
        raise ConfigError(
            f"{name_of(function)}: its annotation cannot be read, {error}: {hint}"
        ) from None


def _events_in(annotation: Any) -> list[type[Event]]:
    """All event classes in an annotation, at any depth: in list[…], Delivery[…], A | B."""
    if isinstance(annotation, type) and issubclass(annotation, Event):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType) or get_args(annotation):
        return [event for part in get_args(annotation) for event in _events_in(part)]
    return []


def _method(model: type[Event]) -> str:
    return "on_" + re.sub(r"(?<!^)(?=[A-Z])", "_", model.__name__).lower()
