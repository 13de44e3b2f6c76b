"""The signed text of requests, by literal signatures: Ed25519 is deterministic."""

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.protocol.signing import rest_headers, subscribe_signature

# a test vector: the key pair is printed in the exchange's public guide
PUBLIC = "zDIJj9qneWIY0IYZ5aXoHcNMCm+XDhVcTssiT0HyY0A="
SEED = "4odxgSUxFrC/zsKWZF4OQwYAgnNu9hnWH3NxWfLAPz4="

SIGNATURE = (
    "JET04e2DKxa3MzJX+vHAvZ2t85IDCQV0Yvkne6ZioCLxZhaDPHACzfEFkaACTR+J2WlVJjGX2nICcJMwOK8zAw=="
)
# the signature of the guide's damaged text, in which `&times` became a multiplication sign
CORRUPTED = (
    "Mt9mTLuXNgH7Mg38YvqyPkTwrb9cMPQ+OBMHfw3j9zSzlT1nsHLOye3EvN8VHFN7rhK70XC7TuaJKfCl7mqxAQ=="
)


def sign(message: bytes) -> str:
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(SEED))
    return base64.b64encode(key.sign(message)).decode()


def test_the_golden_vector() -> None:
    signature = subscribe_signature(PUBLIC, sign, timestamp_ms=1614550000000, window_ms=5000)

    assert signature == (PUBLIC, SIGNATURE, "1614550000000", "5000")
    assert signature[1] != CORRUPTED


def test_rest_signs_its_parameters_in_alphabetical_order() -> None:
    signed: list[bytes] = []

    def record(message: bytes) -> str:
        signed.append(message)
        return "signature"

    headers = rest_headers(
        PUBLIC, record, "orderQueryAll", {"symbol": "SOL_USDC", "marketType": "SPOT"}, 5, 60000
    )

    assert signed == [
        b"instruction=orderQueryAll&marketType=SPOT&symbol=SOL_USDC&timestamp=5&window=60000"
    ]
    assert headers == {
        "X-API-Key": PUBLIC,
        "X-Signature": "signature",
        "X-Timestamp": "5",
        "X-Window": "60000",
    }
