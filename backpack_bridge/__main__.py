"""`python -m backpack_bridge`: the command `backpack-bridge`, whatever the current folder holds."""

import sys
from pathlib import Path

# `python -m` looks into the current folder first, where a `bridge` of the user's may lie. The
# command needs nothing from there.
_HERE = Path(__file__).resolve().parents[1]
_is_safe = getattr(sys.flags, "safe_path", False)  # of Python 3.11; an older one is told below
if not _is_safe and Path(sys.path[0]).resolve() == Path.cwd() != _HERE:
    del sys.path[0]

from bridge.__main__ import main  # noqa: E402 - found now

if __name__ == "__main__":
    main()
