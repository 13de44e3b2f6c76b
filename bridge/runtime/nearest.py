"""The nearest valid name for a misspelt one, for messages. Knows no setting and no stream."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """Names similar to `word`, best first; case is ignored."""
    by_folded = {name.casefold(): name for name in names}
    return [by_folded[hit] for hit in get_close_matches(word.casefold(), by_folded, n=limit)]


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """The end of a message: `; did you mean X?`, or an empty text where no name is similar."""
    hits = nearest(word, names, limit=1)
    return f"; did you mean {hits[0]}?" if hits else ""
