"""The checkpoint: the offset up to which Redis has everything. A small file beside the segments,
written under another name and renamed.

One that is too old is harmless: the append script recognises duplicates. If it is missing or
unreadable, the journal is read from its oldest record, and what is older is marked as missing. One
that contradicts the journal is not used (`believed`).
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
MAX_OFFSET = 10**16  # the most digits that a line of the journal may have for a number


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`offset`: all records before it are settled, except those of `suspended` streams, which have
    their own offsets.

    `target`: the Redis and prefix (empty: nothing was published). `confirmed`: the last ID of each
    stream that this Redis acknowledged. `others`: earlier targets, the latest last → the offset
    from which on they may lack records. `end`: the journal's end (0: of an earlier version).
    """

    offset: int = 0
    target: str = ""
    confirmed: dict[str, str] = field(default_factory=dict)
    suspended: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    end: int = 0

    def turned_to(self, target: str) -> "Checkpoint":
        """The checkpoint for another Redis or prefix. A known target continues from its offset; a
        new one begins where the one before it may lack records, since it may be the same Redis by
        another name: duplicates are recognised by identity.
        """
        if target == self.target:
            return self
        needed = self.needed_from()
        others = {name: at for name, at in self.others.items() if name != self.target}
        if self.target:
            others[self.target] = needed
        offset = others.pop(target, needed)
        return Checkpoint(
            offset, target, others=dict(list(others.items())[-MAX_OTHERS:]), end=self.end
        )

    def needed_from(self) -> int:
        """The offset of the first record that the target may lack."""
        return min([self.offset, *self.suspended.values()])

    def believed(self, end: int) -> "Checkpoint | None":
        """This checkpoint if it is consistent with a journal that ends at `end`; None if an offset
        of its own is beyond that. Other targets with an offset beyond it are left out.
        """
        if any(offset > end for offset in (self.offset, *self.suspended.values())):
            return None
        others = {name: at for name, at in self.others.items() if at <= end}
        return self if others == self.others else replace(self, others=others)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in this folder; None: it is missing, unreadable or inconsistent."""
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
    """Replace a small JSON file atomically. Raises OSError."""
    aside = path.with_name(f"{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(facts))  # json.dump is slower: it is not in C
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
    """The checksum of the file's facts without the checksum itself."""
    checked = {name: value for name, value in facts.items() if name != "crc"}
    return f"{crc32(json.dumps(checked, sort_keys=True).encode()):08x}"
