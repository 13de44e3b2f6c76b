"""Up to where Redis has everything: a small file beside the segments, written aside and renamed.

Too old is harmless, what is there already is told by the append script. Missing or unreadable means
to begin at the journal's oldest record, and to mark what is older; and one that cannot be true is
not believed (`believed`).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from zlib import crc32

from bridge.contract.identity import EntryId
from bridge.contract.json_text import parsed
from bridge.runtime.bounded_file import read_ours

NAME = "checkpoint.json"
MAX_OTHERS = 16
MAX_OFFSET = 10**16  # as many digits as a line of the journal may say


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`offset`: all records before it are settled, but for those of `suspended` streams, which have
    their own.

    `target` names the Redis and prefix it speaks of (empty: nothing was published), `confirmed` is
    the last ID of each stream that it acknowledged. `others`: from which offset on those that were
    published to before, the last one last, may lack something. `end`: how long the journal was (0:
    an earlier version did not say).
    """

    offset: int = 0
    target: str = ""
    confirmed: dict[str, str] = field(default_factory=dict)
    suspended: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    end: int = 0

    def turned_to(self, target: str) -> "Checkpoint":
        """The same for another Redis or prefix. One that is known goes on where it was; a new one
        begins with what the one before it lacks, for it may be the same by another name: what it
        has already is told by identity.
        """
        if target == self.target:
            return self
        needed = self.needed_from()
        others = {name: at for name, at in self.others.items() if name != self.target}
        if self.target:
            others[self.target] = needed
        begun = others.pop(target, needed)
        return Checkpoint(
            begun, target, others=dict(list(others.items())[-MAX_OTHERS:]), end=self.end
        )

    def needed_from(self) -> int:
        """The first record that the target may lack."""
        return min([self.offset, *self.suspended.values()])

    def believed(self, end: int) -> "Checkpoint | None":
        """It, where all it says can be true of a journal that ends there; None where an offset lies
        beyond that. What it says of other targets alone is left out in that case.
        """
        if any(offset > end for offset in (self.offset, *self.suspended.values())):
            return None
        others = {name: at for name, at in self.others.items() if at <= end}
        return self if others == self.others else replace(self, others=others)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in this folder; None where there is none that can be read and makes sense."""
    try:
        facts = parsed(read_ours(folder / NAME))
        if "crc" in facts and facts["crc"] != _checksum(facts):
            return None
        checkpoint = Checkpoint(
            int(facts["offset"]),
            str(facts["target"]),
            {name: str(EntryId.parse(last)) for name, last in facts["confirmed"].items()},
            # `parked`: the key in checkpoints of earlier versions
            _offsets(facts["suspended"] if "suspended" in facts else facts["parked"]),
            _offsets(facts.get("others", {})),
            int(facts.get("end", 0)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return checkpoint if _makes_sense(checkpoint) else None


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint. Raises OSError."""
    facts = {each.name: getattr(checkpoint, each.name) for each in fields(checkpoint)}
    write_aside(folder / NAME, {**facts, "crc": _checksum(facts)})


def write_aside(path: Path, facts: Mapping[str, object]) -> None:
    """Replace a small file of facts, whole or not at all. Raises OSError."""
    aside = path.with_name(f"{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(facts))  # json.dump is not written in C
        file.flush()
        os.fsync(file.fileno())  # else a power loss may leave an empty file under its name
    aside.replace(path)


def _makes_sense(checkpoint: Checkpoint) -> bool:
    offsets = (checkpoint.offset, *checkpoint.suspended.values(), *checkpoint.others.values())
    if not all(0 <= offset <= MAX_OFFSET for offset in (*offsets, checkpoint.end)):
        return False
    return not checkpoint.end or checkpoint.believed(checkpoint.end) is checkpoint


def _offsets(facts: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(offset) for name, offset in facts.items()}


def _checksum(facts: Mapping[str, Any]) -> str:
    """Of what the file says, but for the checksum itself."""
    said = {name: value for name, value in facts.items() if name != "crc"}
    return f"{crc32(json.dumps(said, sort_keys=True).encode()):08x}"
