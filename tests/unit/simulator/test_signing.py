"""The simulator's check of signatures: key, signed text and time window."""

from __future__ import annotations

import pytest

from simulator.signing import DEMO_KEYS, accepts, is_public_key, signed_text

KEY = "zDIJj9qneWIY0IYZ5aXoHcNMCm+XDhVcTssiT0HyY0A="
GOLDEN = "JET04e2DKxa3MzJX+vHAvZ2t85IDCQV0Yvkne6ZioCLxZhaDPHACzfEFkaACTR+J2WlVJjGX2nICcJMwOK8zAw=="
# the signature of the guide's damaged text, in which `&times` became a multiplication sign
CORRUPTED = (
    "Mt9mTLuXNgH7Mg38YvqyPkTwrb9cMPQ+OBMHfw3j9zSzlT1nsHLOye3EvN8VHFN7rhK70XC7TuaJKfCl7mqxAQ=="
)
SIGNED_MS = 1_614_550_000_000


def judged(signature: object, *, now_ms: int = SIGNED_MS, keys: tuple[str, ...] = (KEY,)) -> bool:
    return accepts(signature, "subscribe", accepted_keys=keys, now_ms=now_ms)


def test_the_signed_text_has_instruction_timestamp_and_window() -> None:
    assert (
        signed_text("subscribe", "1614550000000", "5000")
        == "instruction=subscribe&timestamp=1614550000000&window=5000"
    )


def test_parameters_are_signed_in_alphabetical_order() -> None:
    assert (
        signed_text("orderQuery", "1", "2", {"symbol": "SOL_USDC", "orderId": "7"})
        == "instruction=orderQuery&orderId=7&symbol=SOL_USDC&timestamp=1&window=2"
    )


def test_the_golden_signature_is_accepted() -> None:
    assert judged([KEY, GOLDEN, "1614550000000", "5000"])


def test_the_signature_of_the_guide_s_corrupted_string_is_refused() -> None:
    assert not judged([KEY, CORRUPTED, "1614550000000", "5000"])


@pytest.mark.parametrize("late_ms", [-5000, 5000])
def test_a_signature_is_valid_as_long_as_its_window(late_ms: int) -> None:
    signature = [KEY, GOLDEN, "1614550000000", "5000"]
    assert judged(signature, now_ms=SIGNED_MS + late_ms)
    assert not judged(signature, now_ms=SIGNED_MS + late_ms + (1 if late_ms > 0 else -1))


def test_a_key_that_is_not_accepted_is_refused() -> None:
    assert not judged([KEY, GOLDEN, "1614550000000", "5000"], keys=(DEMO_KEYS[1],))


@pytest.mark.parametrize(
    "signature",
    [
        None,
        [],
        "text",
        [KEY, GOLDEN, "1614550000000"],
        [KEY, GOLDEN, 1614550000000, "5000"],
        [KEY, GOLDEN, "1614550000000", 5000],
        [KEY, GOLDEN, "1614550000000", "0"],
        [KEY, GOLDEN, "soon", "5000"],
        [KEY, "not base64!", "1614550000000", "5000"],
        [KEY, "", "1614550000000", "5000"],
    ],
)
def test_anything_but_four_valid_strings_is_refused(signature: object) -> None:
    assert not judged(signature)


def test_a_window_above_a_minute_is_refused_with_any_signature() -> None:
    import base64

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = Ed25519PrivateKey.generate()
    key = base64.b64encode(secret.public_key().public_bytes_raw()).decode()
    for window, good in (("60000", True), ("60001", False)):
        signed = secret.sign(signed_text("subscribe", "1614550000000", window).encode())
        signature = [key, base64.b64encode(signed).decode(), "1614550000000", window]
        assert judged(signature, keys=(key,)) is good


def test_a_public_key_is_thirty_two_bytes_in_base64() -> None:
    assert all(is_public_key(key) for key in DEMO_KEYS)
    assert not is_public_key("c2hvcnQ=")
    assert not is_public_key("???")
