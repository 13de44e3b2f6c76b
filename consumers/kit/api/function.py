"""A consumer written as a plain function: `@consumes` turns it into the class that the kit runs."""

from collections.abc import Callable
from typing import Any

from bridge.errors import ConfigError
from consumers.kit.api.consumer import Consumer, Mode
from consumers.kit.api.routes import BATCH, CATCH_ALL, name_of, wants_list


def consumes(
    *streams: str, name: str = "", mode: Mode = "shared", **settings: Any
) -> Callable[[Callable[..., Any]], type[Consumer]]:
    """Make a consumer of a function, sync or async; its annotation selects the events it gets.

        @consumes("bookTicker.*")
        def spread(delivery: Delivery[BookTicker]) -> None: ...

        @consumes("trade.*", "depth.*", batch_entries=1000)
        async def store(batch: list[Delivery[Event]]) -> None: ...

    The group's name is the function's, with dashes, unless `name` is given. `settings` are the
    class attributes of `Consumer`, and its hooks `filter`, `key` and `lifespan`, as functions
    without `self`. The function itself stays callable as `spread.on_event(…)`, or
    `store.on_batch(…)`.
    """

    if not all(isinstance(one, str) for one in streams):  # `@consumes` without parentheses
        raise ConfigError(f'@consumes({name_of(streams[0])}): write @consumes("trade.*")')

    def make(function: Callable[..., Any]) -> type[Consumer]:
        if isinstance(function, type):
            raise ConfigError(
                f"@consumes is for functions, and {function.__name__} is a class: derive it from "
                f"Consumer, and write streams = {streams!r} in it"
            )
        called = name or getattr(function, "__name__", "")
        if not called:
            raise ConfigError(
                f"@consumes of {name_of(function)}, which has no name: write "
                f'@consumes({", ".join(map(repr, streams))}, name="…")'
            )
        for setting in settings:
            if setting.startswith("_") or not hasattr(Consumer, setting):
                raise ConfigError(f"@consumes of {called}: there is no {setting!r}")
        # Hooks have no `self`, like the function itself.
        plain = {one: staticmethod(given) for one, given in settings.items() if callable(given)}
        handler = BATCH if wants_list(function) else CATCH_ALL
        return type(
            getattr(function, "__name__", called),
            (Consumer,),
            {
                "name": name or called.replace("_", "-"),
                "streams": streams,
                "mode": mode,
                handler: staticmethod(function),
                "__doc__": function.__doc__,
                "__module__": getattr(function, "__module__", __name__),
                **settings,
                **plain,
            },
        )

    return make
