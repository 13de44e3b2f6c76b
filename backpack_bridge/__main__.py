"""`python -m backpack_bridge`: the command `backpack-bridge`, whatever the current folder holds."""

import sys
from pathlib import Path

# `python -m` puts the current folder first in the import path, and it may contain a user's own
# `bridge`. The command imports nothing from there.
_HERE = Path(__file__).resolve().parents[1]
_is_safe = getattr(
    sys.flags, "safe_path", False
)  # new in Python 3.11; `main` refuses older versions
if not _is_safe and Path(sys.path[0]).resolve() == Path.cwd() != _HERE:
    del sys.path[0]

from bridge.__main__ import main  # noqa: E402 - needs the import path above

if __name__ == "__main__":
    main()
