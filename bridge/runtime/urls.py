"""Splits URLs of any kind (pure)."""

import re
from urllib.parse import SplitResult, urlsplit

_END_OF_HOSTS = re.compile("[/?#]")


def split_url(url: str) -> SplitResult:
    """As `urlsplit`, but for any text: where it is no URL, all of it becomes the path.

    Hosts may be a list with addresses in brackets (`redis+sentinel://s1,[::1]:26380/…`), which
    `urlsplit` refuses in newer releases of Python.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return SplitResult("", "", url, "", "")
    end = found.start() if (found := _END_OF_HOSTS.search(rest)) else len(rest)
    return urlsplit(f"{scheme}://{rest[end:]}")._replace(netloc=rest[:end])
