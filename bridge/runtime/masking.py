"""Hiding secrets in text that people will read. Knows nothing of where the text goes.

Masking must not depend on the secret being well-formed: a password with a raw `@` or `/` in it is
exactly the one that ends up in an error message. So these are patterns over text, not a URL parser.
"""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit

MASK = "***"

_QUERY_PASSWORD = re.compile(r"([?&][^=&?#\s]*password=)[^&#\s]*", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
# a server without AUTH repeats what it was given, and HELLO can carry the same
_LOGIN_REPEATED = re.compile(r"(unknown command\W+(?:auth|hello)\W[^:]*:).*", re.IGNORECASE)


def masked_url(url: str) -> str:
    """The URL with its password replaced: before the last `@`, and in `…password=` parameters."""
    scheme, mark, rest = _QUERY_PASSWORD.sub(rf"\g<1>{MASK}", url).partition("://")
    userinfo, at, host = rest.rpartition("@")
    if not (mark and at):
        return scheme + mark + rest
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}://{user}{colon}{MASK if colon else ''}@{host}"


def passwords_in(url: str) -> tuple[str, ...]:
    """What must not be shown of a valid URL: its passwords, as written and as meant."""
    parts = urlsplit(url)
    written = parts.password or ""
    given = [value for name, value in parse_qsl(parts.query) if name.lower().endswith("password")]
    return tuple(dict.fromkeys(text for text in (written, unquote(written), *given) if text))


def masked_text(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without the given secrets, without passwords of URLs that stand in it, and without
    a login that Redis repeats.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    if "unknown command" in text:
        text = _LOGIN_REPEATED.sub(rf"\g<1> {MASK}", text)
    if "://" not in text:
        return text
    return _URL_IN_TEXT.sub(lambda found: masked_url(found.group()), text)
