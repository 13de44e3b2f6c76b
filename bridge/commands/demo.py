"""`python -m bridge demo`: runs the package `demo`, which is installed along with this one.

It is imported only for this command: the demo depends on the bridge, never the bridge on the demo.
"""

from importlib.util import find_spec

from bridge.errors import Fatal

if not all(map(find_spec, ("aiohttp", "starlette", "uvicorn", "demo"))):
    raise Fatal(
        "the demo needs packages that are not installed: pip install 'backpack-bridge[demo]'"
    )

from demo.__main__ import demo as command

__all__ = ["command"]
