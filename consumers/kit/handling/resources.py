"""A consumer's `lifespan`: entered before the first entry, exited after the last one."""

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
    """Yield the spec with the resources that its `lifespan` yields.

    Raises Fatal if the lifespan cannot be entered. Its exceptions on exit are logged.
    """
    name, limit_s = spec.kind.name, spec.kind.time_limit_s
    try:
        lifespan = _as_context(spec.build().lifespan())
        async with asyncio.timeout(limit_s):
            resources = await lifespan.__aenter__()
    except BridgeError:
        raise  # its message is clear by itself
    except BaseException as error:
        if not is_consumers(error):
            raise
        raise Fatal(
            f"{name}: its lifespan failed before the first entry: {_described(error)}"
        ) from error
    try:
        yield replace(spec, resources=resources)
    finally:
        # The exit gets no exception: the worker's own error is no failure of the resources.
        try:
            async with asyncio.timeout(limit_s):
                await lifespan.__aexit__(None, None, None)
        except BaseException as error:
            if not is_consumers(error):
                raise
            _log.warning("lifespan_failed", consumer=name, error=_described(error))


def _as_context(made: Any) -> AbstractAsyncContextManager[Any]:
    """The lifespan as an async context manager: it may be one already, or an async generator."""
    if hasattr(made, "__aenter__"):
        context: AbstractAsyncContextManager[Any] = made
        return context
    return asynccontextmanager(lambda: made)()


def _described(error: BaseException) -> str:
    at = source_line(error)
    return error_text("", error) + (f" ({at})" if at else "")
