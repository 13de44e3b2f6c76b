"""The owner of a journal: one exchange and one account.

Frames of another exchange must never be published as this one's. A journal of another owner is
moved as a whole to a folder beside the segments; `replay` can read it there.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from bridge.contract.json_text import parsed
from bridge.contract.moments import EPOCH, moment
from bridge.journal.checkpoint import NAME as CHECKPOINT
from bridge.journal.checkpoint import write_aside
from bridge.runtime.bounded_file import read_ours

NAME = "owner.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner. `exchange`: its WebSocket URL; `account`: the key's fingerprint, empty: no key."""

    exchange: str
    account: str = ""

    def may_follow(self, other: "Owner") -> bool:
        """Whether this owner's frames may be appended to a journal of `other`."""
        accounts = {self.account, other.account} - {""}
        return self.exchange == other.exchange and len(accounts) <= 1


def claim(folder: Path, owner: Owner) -> Path | None:
    """Make the folder this owner's. Returns the folder to which another owner's journal was moved,
    or None. Raises OSError. The caller holds the folder's lock.
    """
    before = read_owner(folder)
    aside = None
    if _is_unreadable(folder) or (before is not None and not owner.may_follow(before)):
        aside = _set_aside(folder)
    account = owner.account or (before.account if before and aside is None else "")
    now = Owner(owner.exchange, account)
    if now != before or aside is not None:
        write_aside(folder / NAME, asdict(now))
    return aside


def read_owner(folder: Path) -> Owner | None:
    """The owner of the journal in the folder; None: unknown."""
    try:
        facts = parsed(read_ours(folder / NAME))
        return Owner(str(facts["exchange"]), str(facts["account"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_unreadable(folder: Path) -> bool:
    """Whether there is an owner file that cannot be parsed. Raises OSError."""
    try:
        read_ours(folder / NAME)
    except FileNotFoundError:
        return False
    return read_owner(folder) is None


def _set_aside(folder: Path) -> Path | None:
    files = sorted(folder.glob("*.journal*"))
    if not files:
        return None
    ended = moment(int(max(path.stat().st_mtime for path in files) * 1e6)) or EPOCH
    aside = folder / f"aside-{ended:%Y%m%dT%H%M%S}"
    aside.mkdir(mode=0o700, exist_ok=True)
    # In this order, so that after a crash in between the rest is recognised and moved, too.
    for path in (folder / CHECKPOINT, *files, folder / NAME):
        if path.exists():
            path.rename(aside / path.name)
    return aside
