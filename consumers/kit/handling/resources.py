"""A consumer's `lifespan`: entered before the first entry, left after the last one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import structlog

from bridge.errors import BridgeError, Fatal
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.handling.calls import is_consumers
from consumers.kit.handling.failure import error_text, source_line

_log = structlog.get_logger()


@asynccontextmanager
async def with_resources(spec: ConsumerSpec) -> AsyncIterator[ConsumerSpec]:
    """The same consumer, whose objects have what its `lifespan` yields.

    Raises Fatal where it cannot be entered. What it raises on leaving is logged.
    """
    name, limit_s = spec.kind.name, spec.kind.time_limit_s
    try:
        lifespan = _as_context(spec.build().lifespan())
        async with asyncio.timeout(limit_s):
            resources = await lifespan.__aenter__()
    except BridgeError:
        raise  # its own sentence
    except BaseException as error:
        if not is_consumers(error):
            raise
        raise Fatal(
            f"{name}: its lifespan failed before the first entry: {_told(error)}"
        ) from error
    try:
        yield replace(spec, resources=resources)
    finally:
        # The end of the worker is no failure of theirs: they are left without it.
        try:
            async with asyncio.timeout(limit_s):
                await lifespan.__aexit__(None, None, None)
        except BaseException as error:
            if not is_consumers(error):
                raise
            _log.warning("lifespan_failed", consumer=name, error=_told(error))


def _as_context(made: Any) -> AbstractAsyncContextManager[Any]:
    """An async generator, or a context manager made of one by hand."""
    if hasattr(made, "__aenter__"):
        context: AbstractAsyncContextManager[Any] = made
        return context
    return asynccontextmanager(lambda: made)()


def _told(error: BaseException) -> str:
    at = source_line(error)
    return error_text("", error) + (f" ({at})" if at else "")
