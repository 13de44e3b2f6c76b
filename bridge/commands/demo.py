"""`python -m bridge demo`: hands over to the package `demo`, which comes beside this one.

It is imported when it is called for: it builds on the bridge, and nothing of the bridge on it.
"""

from importlib.util import find_spec

from bridge.errors import Fatal

if not all(map(find_spec, ("aiohttp", "starlette", "uvicorn", "demo"))):
    raise Fatal(
        "the demo needs packages that are not installed: pip install 'backpack-bridge[demo]'"
    )

from demo.__main__ import demo as command

__all__ = ["command"]
