"""The REST client, and reading of bodies: bounded during decompression, since a few thousand bytes
may expand to a thousand million.

Proxies and certificates from the environment may be wrong: a message names the variable, never its
value, which may hold a password.
"""

import asyncio
import errno
import os
import stat
import zlib
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx2

from bridge.errors import ConfigError

MAX_BODY = 16 * 1024 * 1024  # the largest real ones have 0.4 MB
ACCEPTED = "gzip"
PROXIED = ("http", "https", "all")  # <name>_PROXY
CERTIFICATES = "SSL_CERT_FILE"


def http_client(base_url: str, timeout_s: float) -> httpx2.AsyncClient:
    """A new client, which the caller closes. Raises ConfigError."""
    _refuse_bad_proxies()
    try:
        _refuse_endless_certificates()
        return httpx2.AsyncClient(
            base_url=base_url,
            headers={"Accept-Encoding": ACCEPTED},
            timeout=timeout_s,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # keeps none
            verify=not base_url.startswith("http:"),  # reading certificates takes 50 ms
        )
    except OSError as error:
        raise ConfigError(
            f"{CERTIFICATES} in the environment names no file of certificates that can be read "
            f"({type(error).__name__}): give its path, or unset it"
        ) from None


async def read_body(answer: httpx2.Response) -> bytes:
    """The decompressed body of a streamed answer. Raises BadBody, without holding more than
    MAX_BODY bytes, and httpx2's own connection errors.
    """
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in (ACCEPTED, "identity"):
        raise BadBody(f"the body is packed as {encoding[:40]!r}, which was not requested")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding == ACCEPTED else None
    body = bytearray()
    async for part in answer.aiter_raw():
        if unpacking and unpacking.eof:  # zlib would store the rest and copy it at each part
            raise BadBody("more follows the end of what was packed")
        body += _unpacked(unpacking, part, MAX_BODY + 1 - len(body)) if unpacking else part
        if len(body) > MAX_BODY:
            raise BadBody(f"the body is larger than {MAX_BODY} bytes")
    if unpacking and body and not unpacking.eof:
        raise BadBody("the body ends before what was packed does")
    return bytes(body)


async def fetch(
    client: httpx2.AsyncClient,
    path: str,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The body of one GET, within the time limit in total. Raises httpx2.HTTPError, also for a
    status that is no success, and BadBody.
    """
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream("GET", path, headers=headers) as answer,
        ):
            answer.raise_for_status()
            return await read_body(answer)
    except TimeoutError:
        raise httpx2.ReadTimeout(f"no answer within {timeout_s:g} s") from None


class BadBody(ValueError):
    """A body that cannot be used."""


def _unpacked(unpacking: "zlib._Decompress", part: bytes, at_most: int) -> bytes:
    try:
        return unpacking.decompress(part, at_most)
    except zlib.error as error:
        raise BadBody(f"the body cannot be unpacked: {error}") from None


def _refuse_bad_proxies() -> None:
    proxies = getproxies()
    if "*" in [host.strip() for host in proxies.get("no", "").split(",")]:
        return  # NO_PROXY=* turns off all proxies
    for scheme in PROXIED:
        if url := proxies.get(scheme):
            flaw = _flaw(url if "://" in url else f"http://{url}")
            if flaw:
                raise ConfigError(
                    f"{_place(scheme, url)} {flaw}: write http://host:port, or unset it"
                )


def _refuse_endless_certificates() -> None:
    """Raises OSError: OpenSSL would block on a pipe and read a device without end."""
    path = os.environ.get(CERTIFICATES)
    if path and not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is no file", path)


def _flaw(url: str) -> str:
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            return "is no proxy's address"
        httpx2.Proxy(url)
        httpx2.AsyncHTTPTransport(proxy=url, verify=False)
    except ImportError:
        return "names a SOCKS proxy, for which the package socksio is missing"
    except (ValueError, httpx2.InvalidURL):
        return "is no proxy's address"
    return ""


def _place(scheme: str, url: str) -> str:
    """The variable that holds this proxy, in its own upper or lower case."""
    variable = f"{scheme}_proxy"
    names = [
        name for name, value in os.environ.items() if name.lower() == variable and value == url
    ]
    return f"{names[0]} in the environment" if names else f"the system's {scheme} proxy"
