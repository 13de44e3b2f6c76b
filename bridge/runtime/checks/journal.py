"""Can the journal be written where it is meant to be? Writes nothing but a folder of its own."""

import os
from pathlib import Path

from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.config import Journal


def check_journal(settings: Journal) -> Finding:
    """The folder, or the nearest one above it that exists."""
    if not settings.enabled:
        advice = "set journal.enabled, unless losing what Redis has not is no matter"
        return Finding(Level.WARNING, "journal", "off", advice)
    above = (settings.dir, *settings.dir.absolute().parents)
    nearest = next(path for path in above if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK) and _takes_files(nearest):
        room = f"{settings.dir}, up to {settings.max_bytes >> 20} MB"
        return Finding(Level.OK, "journal", room)
    why = "cannot be written" if nearest.is_dir() else "is a file, not a folder"
    return Finding(
        Level.PROBLEM,
        "journal",
        f"{nearest} {why}: the bridge would go on without a journal",
        "give journal.dir a folder that this user may write",
    )


def _takes_files(folder: Path) -> bool:
    """Rights do not tell everything (root, and file systems that are read-only): try."""
    probe = folder / f".bridge-check-{os.getpid()}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError:
        return False
    return True
