"""Up to where Redis has everything: a small file beside the segments, written aside and renamed.

Too old is harmless, what is there already is told by the append script. Missing or unreadable means
to begin at the journal's oldest record.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bridge.contract.identity import EntryId

NAME = "checkpoint.json"
MAX_OTHERS = 16


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`offset`: all records before it are settled, but for `parked` streams, which have their own.

    `target` names the Redis and prefix it speaks of (empty: nothing was published), `confirmed` is
    the last ID of each stream that it acknowledged. `others`: from which offset on those that were
    published to before, the last one last, may lack something.
    """

    offset: int = 0
    target: str = ""
    confirmed: dict[str, str] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)

    def turned_to(self, target: str) -> "Checkpoint":
        """The same for another Redis or prefix. One that is known goes on where it was; a new one
        begins with what the one before it lacks, for it may be the same by another name: what it
        has already is told by identity.
        """
        if target == self.target:
            return self
        needed = min([self.offset, *self.parked.values()])
        others = {name: at for name, at in self.others.items() if name != self.target}
        if self.target:
            others[self.target] = needed
        begun = others.pop(target, needed)
        return Checkpoint(begun, target, others=dict(list(others.items())[-MAX_OTHERS:]))


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in this folder; None where there is none that can be read."""
    try:
        facts = json.loads((folder / NAME).read_text())
        return Checkpoint(
            int(facts["offset"]),
            str(facts["target"]),
            {name: str(EntryId.parse(last)) for name, last in facts["confirmed"].items()},
            {name: int(offset) for name, offset in facts["parked"].items()},
            {name: int(offset) for name, offset in facts.get("others", {}).items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint. Raises OSError."""
    write_aside(folder / NAME, asdict(checkpoint))


def write_aside(path: Path, facts: Mapping[str, object]) -> None:
    """Replace a small file of facts, whole or not at all. Raises OSError."""
    aside = path.with_name(f"{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())  # else a power loss may leave an empty file under its name
    aside.replace(path)
