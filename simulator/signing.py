"""Signed requests: rebuild the string a client signed and verify it with Ed25519.

Pure: the server's clock is an argument. The caller chooses the accepted keys. Never holds a secret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Container, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LONGEST_WINDOW_MS = 60_000
# Both public keys of the exchange's Python guide: publicly known, accepted so that its programs run
# unchanged.
DEMO_KEYS = (
    "zDIJj9qneWIY0IYZ5aXoHcNMCm+XDhVcTssiT0HyY0A=",
    "5+yQgwU0ZdJ/9s+GXfuPFfo7yQQpl9CgvQedJXne30o=",
)


def signed_text(
    instruction: str, timestamp: str, window: str, params: Mapping[str, str] | None = None
) -> str:
    """The text that a client signs: the instruction, its parameters in alphabetical order,
    timestamp and window.
    """
    middle = "".join(f"&{name}={value}" for name, value in sorted((params or {}).items()))
    return f"instruction={instruction}{middle}&timestamp={timestamp}&window={window}"


def is_public_key(text: str) -> bool:
    """Whether a text is the base64 form of a public key."""
    return len(_decoded(text)) == 32


def accepts(
    signature: object,
    instruction: str,
    *,
    accepted_keys: Container[str],
    now_ms: int,
    params: Mapping[str, str] | None = None,
) -> bool:
    """Whether `[key, signature, timestamp, window]` is four strings with a valid signature of an
    accepted key, within its window.
    """
    match signature:
        case [str(key), str(signed), str(timestamp), str(window)]:
            return (
                key in accepted_keys
                and _in_time(timestamp, window, now_ms)
                and _verifies(key, signed, signed_text(instruction, timestamp, window, params))
            )
        case _:
            return False


def _in_time(timestamp: str, window: str, now_ms: int) -> bool:
    if not (_is_number(timestamp) and _is_number(window)):
        return False
    window_ms = int(window)
    return 0 < window_ms <= LONGEST_WINDOW_MS and abs(now_ms - int(timestamp)) <= window_ms


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _verifies(key: str, signed: str, text: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(_decoded(key)).verify(_decoded(signed), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
