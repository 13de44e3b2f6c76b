"""Hiding secrets in text that people will read. Knows nothing of where the text goes.

Masking must not depend on the secret being well-formed: a password with a raw `@` or `/` in it is
exactly the one that ends up in an error message. So these are patterns over text, not a URL parser.
"""

import re
from collections.abc import Iterable

MASK = "***"

_QUERY_PASSWORD = re.compile(r"([?&][^=&?#\s]*password=)[^&#\s]*", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)


def masked_url(url: str) -> str:
    """The URL with its password replaced: before the last `@`, and in `…password=` parameters."""
    scheme, mark, rest = _QUERY_PASSWORD.sub(rf"\g<1>{MASK}", url).partition("://")
    userinfo, at, host = rest.rpartition("@")
    if not (mark and at):
        return scheme + mark + rest
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}://{user}{colon}{MASK if colon else ''}@{host}"


def masked_text(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without the given secrets and without passwords of URLs that stand in it."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    if "://" not in text:
        return text
    return _URL_IN_TEXT.sub(lambda found: masked_url(found.group()), text)
