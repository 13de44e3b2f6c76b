"""The client for REST. What it takes from the environment, proxies and certificates, may be wrong:
that is told by the variable's name, and never by its value, which may hold a password.
"""

import os
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from bridge.errors import ConfigError

PROXIED = ("http", "https", "all")  # <name>_PROXY
CERTIFICATES = "SSL_CERT_FILE"


def http_client(base_url: str, timeout_s: float) -> httpx.AsyncClient:
    """A client, to be closed by whoever asked for it. Raises ConfigError."""
    _refuse_bad_proxies()
    try:
        return httpx.AsyncClient(
            base_url=base_url,
            timeout=timeout_s,
            verify=not base_url.startswith("http:"),  # certificates take 50 ms to read
        )
    except OSError as error:
        raise ConfigError(
            f"{CERTIFICATES} in the environment names no file of certificates that can be read "
            f"({type(error).__name__}): give its path, or unset it"
        ) from None


def _refuse_bad_proxies() -> None:
    proxies = getproxies()
    if "*" in [host.strip() for host in proxies.get("no", "").split(",")]:
        return  # NO_PROXY=*: none of them is used
    for scheme in PROXIED:
        if url := proxies.get(scheme):
            flaw = _flaw(url if "://" in url else f"http://{url}")
            if flaw:
                raise ConfigError(
                    f"{_place(scheme, url)} {flaw}: write http://host:port, or unset it"
                )


def _flaw(url: str) -> str:
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            return "is no proxy's address"
        httpx.Proxy(url)
        httpx.AsyncHTTPTransport(proxy=url, verify=False)
    except ImportError:
        return "names a SOCKS proxy, for which the package socksio is missing"
    except (ValueError, httpx.InvalidURL):
        return "is no proxy's address"
    return ""


def _place(scheme: str, url: str) -> str:
    """The variable that says so, in whichever case it is written."""
    wanted = f"{scheme}_proxy"
    names = [name for name, value in os.environ.items() if name.lower() == wanted and value == url]
    return f"{names[0]} in the environment" if names else f"the system's {scheme} proxy"
