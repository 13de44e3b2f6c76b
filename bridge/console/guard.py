"""Decides which requests are answered, and which may change something (pure).

Every page that is open in a browser can reach a console on the loopback. So the Host must be one of
ours (else another site's name could resolve to this address), and so must the Origin where it is
given; a request that changes something needs an Origin and the token.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status and text of a refusing answer."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Guard:
    """`hosts`: all accepted spellings of host:port. `token`: empty for a read-only
    console."""

    hosts: frozenset[str]
    token: str = field(default="", repr=False)

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why this request is refused; None where it is accepted. `headers` by lower-case name."""
        host = headers.get("host", "").lower()
        if host not in self.hosts:
            return Refusal(421, f"this console is not {host or 'nameless'}: see `--host`")
        origin = headers.get("origin", "").lower()
        if origin and origin.partition("://")[2] not in self.hosts:
            return Refusal(403, f"pages of {origin} may not use this console")
        if headers.get("sec-fetch-site", "") == "cross-site" and not _is_navigation(headers):
            return Refusal(403, "pages of other sites may not use this console")
        if method in ("GET", "HEAD"):
            return None
        if not origin:
            return Refusal(403, "a request that changes something needs an Origin")
        return self._without_token(headers)

    def _without_token(self, headers: Mapping[str, str]) -> Refusal | None:
        if not self.token:
            return Refusal(403, "this console is read-only: start it with --token-file")
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.encode(), self.token.encode()):
            return None
        return Refusal(401, "the token is missing or wrong")


def hosts_of(host: str, port: int, more: Iterable[str] = ()) -> frozenset[str]:
    """The accepted values of Host for a console that listens there; `more`: names of a proxy or of
    this machine, with or without a port."""
    named = f"[{host}]" if ":" in host else host
    names = {named.lower(), *_LOOPBACK} if is_loopback(host) else {named.lower()}
    ours = {f"{name}:{port}" for name in names}
    for one in map(str.lower, more):
        ours |= {one, f"{one}:{port}"}
    return frozenset(ours | names if port == 80 else ours)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to the address."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _is_navigation(headers: Mapping[str, str]) -> bool:
    """Whether the request follows a link on another site; it shows a page and reads no data."""
    return headers.get("sec-fetch-mode", "") == "navigate"
