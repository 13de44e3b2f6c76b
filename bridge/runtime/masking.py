"""Hides secrets in text for people. Knows nothing of the text's use.

Masking must not depend on the secret being well-formed: a password with a raw `@` or `/` in it is
exactly the one that ends up in an error message. So these are patterns over text, not a URL parser.
The text may be hostile: each pattern's work is bounded at each position, so that masking takes time
in proportion to the text's length.
"""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote

from bridge.runtime.urls import split_url

MASK = "***"

_known: set[str] = set()  # secrets of this process

_QUERY_PASSWORD = re.compile(r"([?&][^=&?#\s]*password=)[^&#\s]*", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"\b[a-z][a-z0-9+.-]{0,30}://[^\s'\"<>]+", re.IGNORECASE)
# A server that does not know AUTH or HELLO repeats their arguments, passwords too, in its error.
_LOGIN_REPEATED = re.compile(
    r"(unknown command\W{1,9}(?:auth|hello)\W[^:]{0,200}:).*", re.IGNORECASE
)


def hide(secrets: Iterable[str]) -> None:
    """Make `masked_text` mask these secrets too, in all of this process."""
    _known.update(filter(None, secrets))


def masked_url(url: str) -> str:
    """The URL with its password replaced: before the last `@`, and in `…password=` parameters. A
    single word before the `@` may be a password without its colon, so it is masked; so is all text
    before the `@` where there is no `://` (`redis:/:password@host`).
    """
    scheme, mark, rest = _QUERY_PASSWORD.sub(rf"\g<1>{MASK}", url).partition("://")
    if not mark:
        _, at, host = scheme.rpartition("@")
        return f"{MASK}@{host}" if at else scheme
    userinfo, at, host = rest.rpartition("@")
    if not at:
        return scheme + mark + rest
    user, colon, _ = userinfo.partition(":")
    if colon:
        return f"{scheme}://{user}:{MASK}@{host}"
    is_path = "/" in userinfo and not scheme.lower().startswith("redis")
    return f"{scheme}://{userinfo if is_path else MASK}@{host}"


def passwords_in(url: str) -> tuple[str, ...]:
    """The passwords of a valid URL, as written and decoded. Without any, the user's name is
    returned, since it may be one.
    """
    parts = split_url(url)
    given = [value for name, value in parse_qsl(parts.query) if name.lower().endswith("password")]
    written = parts.password or ("" if given else parts.username) or ""
    return tuple(dict.fromkeys(text for text in (written, unquote(written), *given) if text))


def masked_text(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with these masked: the given secrets, those given to `hide`, passwords in URLs, and
    a login that Redis repeats.
    """
    for secret in sorted(_known.union(filter(None, secrets)), key=len, reverse=True):
        text = text.replace(secret, MASK)
    if "unknown command" in text:
        text = _LOGIN_REPEATED.sub(rf"\g<1> {MASK}", text)
    if "://" not in text:
        return text
    return _URL_IN_TEXT.sub(lambda found: masked_url(found.group()), text)
