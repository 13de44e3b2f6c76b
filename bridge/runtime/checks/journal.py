"""Whether the journal folder can be written. Leaves nothing behind."""

import os
from pathlib import Path

from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.config import Journal


def check_journal(settings: Journal) -> Finding:
    """Check the folder, or the nearest existing one above it."""
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
        f"{nearest} {why}: the bridge would continue without a journal",
        "give journal.dir a folder that this user may write",
    )


def _takes_files(folder: Path) -> bool:
    """Create and delete a file: permission bits do not cover root and read-only file systems."""
    probe = folder / f".bridge-check-{os.getpid()}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError:
        return False
    return True
