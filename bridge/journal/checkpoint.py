"""Up to where Redis has everything: a small file beside the segments, written aside and renamed.

Too old is harmless, what is there already is told by the append script. Missing or unreadable means
to begin at the journal's oldest record.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bridge.contract.identity import EntryId

NAME = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`offset`: all records before it are settled, but for `parked` streams, which have their own.

    `target` names the Redis and prefix it speaks of, `confirmed` is the last ID of each stream that
    it acknowledged.
    """

    offset: int = 0
    target: str = ""
    confirmed: dict[str, str] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in this folder; None where there is none that can be read."""
    try:
        facts = json.loads((folder / NAME).read_text())
        return Checkpoint(
            int(facts["offset"]),
            str(facts["target"]),
            {name: str(EntryId.parse(last)) for name, last in facts["confirmed"].items()},
            {name: int(offset) for name, offset in facts["parked"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint. Raises OSError."""
    aside = folder / f"{NAME}.new"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(checkpoint), file)
        file.flush()
        os.fsync(file.fileno())  # else a power loss may leave an empty file under its name
    aside.replace(folder / NAME)
