"""Resolves what a user typed to streams: names, or patterns with `*` (pure)."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from bridge.contract.streams import BadStreamName, parse_stream
from bridge.runtime.nearest import nearest

OWN = ("bridge:", "consumers:")  # keys that no exchange stream can have


def is_pattern(text: str) -> bool:
    """Whether the text is a pattern; no stream's name has these characters."""
    return any(character in text for character in "*?[")


def chosen(requested: Sequence[str], registry: Iterable[str]) -> list[str]:
    """The names as typed, and the matches of patterns in the registry, without duplicates."""
    names: dict[str, None] = {}
    known = sorted(registry)
    for one in requested:
        hits = [name for name in known if fnmatchcase(name, one)] if is_pattern(one) else [one]
        names |= dict.fromkeys(hits)
    return list(names)


def is_text(name: str) -> bool:
    """Whether the name can be encoded; bytes of the command line may be no UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def mistake(name: str, registry: Iterable[str]) -> str:
    """Why this name can never be a stream, with the nearest valid one; empty where it can."""
    if not is_text(name):
        return f"{name!r} is no UTF-8 text: no stream has this name"
    if is_pattern(name) or name.startswith(OWN):
        return ""
    try:
        parse_stream(name)
    except BadStreamName as error:
        near = _near(name, registry)
        return f"{name!r} is not a stream; {near}" if near else str(error)
    return ""


def absence(name: str, registry: Iterable[str]) -> str:
    """A message for a stream or pattern without entries yet; empty for a pattern with matches."""
    known = list(registry)
    if is_pattern(name):
        if any(fnmatchcase(one, name) for one in known):
            return ""
        have = f"; there are {len(known)} other streams" if known else "; there are none at all"
        return f"no stream matches {name!r} yet{have}: waiting"
    if name in known or name.startswith(OWN):
        return f"{name} has no entry yet: waiting"
    near = _near(name, known)
    return f"no bridge publishes {name} yet: waiting" + (f" ({near})" if near else "")


def _near(name: str, registry: Iterable[str]) -> str:
    hits = nearest(name, registry)
    return f"similar: {', '.join(hits)}" if hits else ""
