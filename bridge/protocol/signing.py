"""The signed texts of private subscriptions and REST calls (pure: the key is in `runtime.keys`).

Ed25519 over ASCII. The signature of a subscription does not cover the stream names; that of a REST
call covers the parameters, in alphabetical order. Source: the exchange's documentation and official
client.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Sign = Callable[[bytes], str]  # bytes to sign → base64 of the signature


@dataclass(frozen=True, slots=True)
class Signer:
    """The account's public key (base64), and the function that signs with the private key."""

    public_key: str
    sign: Sign


def subscribe_signature(
    public_key: str, sign: Sign, timestamp_ms: int, window_ms: int
) -> tuple[str, str, str, str]:
    """The four strings of a SUBSCRIBE's `signature`: key, signature, timestamp, window (ms)."""
    text = f"instruction=subscribe&timestamp={timestamp_ms}&window={window_ms}"
    return public_key, sign(text.encode()), str(timestamp_ms), str(window_ms)


def rest_headers(
    public_key: str,
    sign: Sign,
    instruction: str,
    params: Mapping[str, str],
    timestamp_ms: int,
    window_ms: int,
) -> dict[str, str]:
    """Headers of a signed REST call; timestamp and window in ms."""
    parts = [f"instruction={instruction}"]
    parts += [f"{name}={params[name]}" for name in sorted(params)]
    parts += [f"timestamp={timestamp_ms}", f"window={window_ms}"]
    return {
        "X-API-Key": public_key,
        "X-Signature": sign("&".join(parts).encode()),
        "X-Timestamp": str(timestamp_ms),
        "X-Window": str(window_ms),
    }
