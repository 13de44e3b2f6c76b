"""Which method of a consumer gets which event: by the handler's name, and by its annotation (pure).

`on_trade` gets trades. `on_event`, `on_batch` and functions get what the annotation of their first
parameter names: `Delivery[Trade]`, `Delivery[Trade | Gap]`, `list[Delivery[Trade]]`; without an
event in it, all. A second parameter, whatever its name, asks for the `Results`.
"""

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from bridge.contract.entry import EXCHANGE_MODELS, OWN_MODELS
from bridge.contract.events import Event
from bridge.errors import ConfigError
from bridge.runtime.nearest import did_you_mean

CATCH_ALL = "on_event"
BATCH = "on_batch"
HOOKS = frozenset({"on_missed"})  # called by the kit about itself, not with an event

_MODELS = (*EXCHANGE_MODELS.values(), *OWN_MODELS)


def handlers_of(kind: type[Any]) -> Mapping[type[Event], str]:
    """The method for each event class. Raises ConfigError for one that fits no event."""
    by_method = {_method(model): model for model in _MODELS}
    present = [name for name in dir(kind) if name.startswith("on_") and name not in HOOKS]
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
    found = {model: name for name, model in by_method.items() if name in present}
    if CATCH_ALL in present:
        found = dict.fromkeys(events_wanted(getattr(kind, CATCH_ALL)), CATCH_ALL) | found
    return found


def takes_results(handler: Callable[..., Any]) -> bool:
    """Whether a bound handler has a parameter after the delivery."""
    return len(inspect.signature(handler).parameters) > 1


def wants_list(function: Callable[..., Any]) -> bool:
    """Whether its annotation asks for a batch: `list[Delivery[…]]`."""
    annotation = _annotation(function)
    return annotation is list or get_origin(annotation) in (list, Sequence)


def events_wanted(function: Callable[..., Any]) -> Sequence[type[Event]]:
    """The event classes that the annotation of its first parameter names; none named: all."""
    named = _events_in(_annotation(function))
    if not named or Event in named:
        return _MODELS
    return [model for model in _MODELS if issubclass(model, tuple(named))]


def _annotation(function: Callable[..., Any]) -> Any:
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    if not parameters:
        raise ConfigError(f"{function.__qualname__} needs a parameter: the delivery")
    try:
        return get_type_hints(function).get(parameters[0])
    except NameError as error:
        raise ConfigError(
            f"{function.__qualname__}: its annotation cannot be read, {error}: import that name at "
            "the top of the module (not under TYPE_CHECKING)"
        ) from None


def _events_in(annotation: Any) -> list[type[Event]]:
    """All event classes inside, however deep: in list[…], Delivery[…], A | B."""
    if isinstance(annotation, type) and issubclass(annotation, Event):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType) or get_args(annotation):
        return [event for part in get_args(annotation) for event in _events_in(part)]
    return []


def _method(model: type[Event]) -> str:
    return "on_" + re.sub(r"(?<!^)(?=[A-Z])", "_", model.__name__).lower()
