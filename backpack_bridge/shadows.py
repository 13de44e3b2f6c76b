"""Detects another package that shadows `bridge` or `consumers`, before an import from it fails."""

from importlib.util import find_spec
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]


def check_shadows() -> None:
    """Raise ImportError if another `bridge` or `consumers` comes first in the import path."""
    for name in ("bridge", "consumers"):
        spec = find_spec(name)
        path = Path(spec.origin).resolve() if spec and spec.origin else None
        if path != _HERE / name / "__init__.py":
            raise ImportError(
                f"backpack-bridge has a package {name!r}, and {path or 'another one'} is found in "
                "its place: give yours another name"
            )
