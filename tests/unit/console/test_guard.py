"""The console's checks of a request: Host, Origin and token."""

import pytest

from bridge.console.guard import HEADERS, Guard, hosts_of

OURS = {"host": "127.0.0.1:8088", "origin": "http://127.0.0.1:8088"}
TOKEN = "a-token-of-sixteen"
WITH_TOKEN = OURS | {"authorization": f"Bearer {TOKEN}"}
GUARD = Guard(hosts_of("127.0.0.1", 8088), TOKEN)


def status(method: str, headers: dict[str, str], guard: Guard = GUARD) -> int | None:
    refusal = guard.refusal(method, headers)
    return refusal and refusal.status


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8088", "localhost:8088", "LocalHost:8088", "[::1]:8088"]
)
def test_a_request_with_a_loopback_host_is_answered(host: str) -> None:
    assert status("GET", {"host": host}) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:80", "evil.example:8088", ""]
)
def test_a_request_with_a_foreign_host_is_refused(host: str) -> None:
    assert status("GET", {"host": host}) == 421


def test_a_named_host_of_a_proxy_is_answered_with_and_without_the_port() -> None:
    guard = Guard(hosts_of("127.0.0.1", 8088, ["Bridge.Example"]))
    assert status("GET", {"host": "bridge.example"}, guard) is None
    assert status("GET", {"host": "bridge.example:8088"}, guard) is None


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8089"])
def test_a_read_from_another_origin_is_refused(origin: str) -> None:
    assert status("GET", OURS | {"origin": origin}) == 403


def test_another_site_may_link_to_a_page_but_not_fetch_from_it() -> None:
    fetched = {"host": "127.0.0.1:8088", "sec-fetch-site": "cross-site"}
    assert status("GET", fetched | {"sec-fetch-mode": "no-cors"}) == 403
    assert status("GET", fetched | {"sec-fetch-mode": "navigate"}) is None


def test_a_change_needs_token_and_origin() -> None:
    assert status("POST", WITH_TOKEN) is None
    assert status("POST", OURS) == 401
    assert status("POST", OURS | {"authorization": f"Bearer {TOKEN}x"}) == 401
    assert status("POST", OURS | {"authorization": f"Basic {TOKEN}"}) == 401
    assert status("POST", {"host": OURS["host"], "authorization": f"Bearer {TOKEN}"}) == 403


def test_without_a_configured_token_every_change_is_refused() -> None:
    read_only = Guard(hosts_of("127.0.0.1", 8088))
    assert status("POST", OURS | {"authorization": "Bearer "}, read_only) == 403
    assert status("DELETE", WITH_TOKEN, read_only) == 403


def test_the_guards_repr_does_not_have_the_token() -> None:
    assert TOKEN not in repr(GUARD)


def test_content_security_policy_forbids_foreign_sources_and_inline_code() -> None:
    directives = {
        name: sources
        for name, *sources in (one.split() for one in HEADERS["content-security-policy"].split(";"))
    }
    assert directives == {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'"],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
    }


def test_headers_forbid_other_sites_to_frame_or_read_a_page() -> None:
    others = {name: text for name, text in HEADERS.items() if name != "content-security-policy"}
    assert others == {
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
