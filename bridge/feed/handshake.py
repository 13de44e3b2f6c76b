"""Opens a WebSocket to the exchange, and describes failures to do so."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidProxy, InvalidStatus, WebSocketException
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from bridge.core.counters import EndCause
from bridge.feed.limits import retry_after_s
from bridge.feed.socket import MessageSocket
from bridge.runtime.config import Exchange

CLOSE_TIMEOUT_S = 1.0
PORTS = {"ws": 80, "wss": 443}

# The last three: a redirect to an invalid address, and a SOCKS proxy without its library.
NO_CONNECTION = (
    WebSocketException, OSError, TimeoutError, ValueError, OverflowError, ImportError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ended:
    """How a connection ended, or why it could not be made.

    `is_closed`: the exchange sent a Close frame. `retry_after_s`: the pause that it requested.
    """

    reason: str
    cause: EndCause
    is_closed: bool = False
    retry_after_s: float | None = None


class _Handshake(connect):
    """Follows no redirect to another host, port or scheme: private subscriptions would be signed
    there (the library follows up to ten redirects to any address).
    """

    def process_redirect(self, exc: Exception) -> Exception | str:
        """The address to continue with, or the exception to raise."""
        following = super().process_redirect(exc)
        if isinstance(following, str) and _origin(following) != _origin(self.uri):
            return exc
        return following

    async def __aexit__(self, *raised: Any) -> None:
        """Close it. The AttributeError of asyncio before 3.11.4 for a TLS transport that is closed
        twice is ignored: the connection has ended.
        """
        try:
            await super().__aexit__(*raised)
        except AttributeError as error:
            if error.name != "_abort":
                raise


def handshake(settings: Exchange) -> connect:
    """A connection as a context manager with a MessageSocket. Raises InvalidStatus if the exchange
    refuses it, and the exceptions in NO_CONNECTION.
    """
    return _Handshake(
        settings.ws_url,
        create_connection=MessageSocket,
        compression="deflate" if settings.compression else None,
        open_timeout=settings.open_timeout_s,
        ping_interval=None,  # `Connection` sends its own pings
        close_timeout=CLOSE_TIMEOUT_S,
        max_size=settings.max_frame_bytes,
        proxy=_proxy(settings.ws_url),
    )


def refused_handshake(error: InvalidStatus, url: str) -> Ended:
    """The `Ended` for an HTTP response without an upgrade."""
    response = error.response
    reason = f"refused with HTTP {response.status_code}"
    if response.status_code < 400 and (location := response.headers.get("Location", "")):
        with suppress(ValueError):
            reason += f", a redirect to {urlsplit(urljoin(url, location)).netloc}: not followed"
    pause_s = retry_after_s(response.headers.get("Retry-After", ""))
    if pause_s is not None:
        reason += f", not before {pause_s:g} s"
    return Ended(reason, EndCause.REFUSED, retry_after_s=pause_s)


def describe_proxy(url: str) -> str:
    """A text with the proxy of the environment for this address, without its password; empty: no
    proxy.
    """
    try:
        proxy = _proxy(url)
        host = urlsplit(proxy).netloc.rpartition("@")[2] if proxy else ""
    except (WebSocketException, ValueError):
        return ""
    return f", through the proxy {host} that the environment names" if host else ""


def describe_failure(error: Exception) -> str:
    """Why there is no connection. The library's text for an invalid proxy has its password, so it
    is replaced.
    """
    if isinstance(error, InvalidProxy):
        return "the environment names an invalid proxy: write http://host:port"
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _proxy(url: str) -> str | None:
    """The proxy of the environment; as for REST, HTTP is the default scheme."""
    proxy = get_proxy(parse_uri(url))
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)
