"""The account's key pair: refusals and their messages; the secret is never shown."""

import base64
import copy
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigError
from bridge.runtime.keys import AccountKey, load_key, require_key, secret_texts

# the two key pairs printed in the exchange's Python guide
DEMO = (
    (
        "zDIJj9qneWIY0IYZ5aXoHcNMCm+XDhVcTssiT0HyY0A=",
        "4odxgSUxFrC/zsKWZF4OQwYAgnNu9hnWH3NxWfLAPz4=",
    ),
    (
        "5+yQgwU0ZdJ/9s+GXfuPFfo7yQQpl9CgvQedJXne30o=",
        "TDSkv44jf/iD/QCKkyCdixO+p1sfLXxk+PZH7mW/ams=",
    ),
)
SEEDS = st.binary(min_size=32, max_size=32)


def pair(seed: bytes) -> tuple[str, str]:
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return base64.b64encode(public).decode(), base64.b64encode(seed).decode()


PUBLIC, SECRET = pair(bytes(range(32)))
OTHER_PUBLIC, OTHER_SECRET = pair(bytes(32))


def load(public: str, secret: str, *, real: bool = True) -> AccountKey | None:
    return load_key({"PUBLIC_KEY": public, "SECRET_KEY": secret}, None, exchange_is_real=real)


def test_a_pair_that_fits_is_loaded() -> None:
    key = load(PUBLIC, SECRET)
    assert key is not None
    assert key.public_key_b64 == PUBLIC
    assert key.fingerprint == "56475aa75463474c"


def test_without_variables_there_is_no_key() -> None:
    assert load_key({}, None, exchange_is_real=True) is None
    assert load("", "") is None


def test_the_golden_signature_of_the_protocol() -> None:
    key = load(*DEMO[0], real=False)
    assert key is not None
    assert key.sign(b"instruction=subscribe&timestamp=1614550000000&window=5000") == (
        "JET04e2DKxa3MzJX+vHAvZ2t85IDCQV0Yvkne6ZioCLxZhaDPHACzfEFkaACTR+J2WlVJjGX2nICcJMwOK8zAw=="
    )


def test_a_secret_of_64_bytes_is_the_seed_and_the_public_key() -> None:
    both = base64.b64encode(base64.b64decode(SECRET) + base64.b64decode(PUBLIC)).decode()
    key = load(PUBLIC, both)
    assert key is not None
    assert key.public_key_b64 == PUBLIC


def test_environment_wins_over_env_file_variable_by_variable(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(f"PUBLIC_KEY={OTHER_PUBLIC}\nSECRET_KEY='{SECRET}'\n")
    key = load_key({"PUBLIC_KEY": PUBLIC, "SECRET_KEY": ""}, env_file, exchange_is_real=True)
    assert key is not None
    assert key.public_key_b64 == PUBLIC
    assert secret_texts("", {}, env_file) == (SECRET,)
    assert secret_texts("redis://:hush@h:1/0", {}, env_file) == (SECRET, "hush")


SEED_AND_WRONG_PUBLIC = base64.b64encode(bytes(range(32)) + bytes(32)).decode()
REFUSALS = {
    (PUBLIC, ""): "PUBLIC_KEY is set but SECRET_KEY is not: set both, or neither",
    ("", SECRET): "SECRET_KEY is set but PUBLIC_KEY is not: set both, or neither",
    (PUBLIC, "not base64!".replace(" ", "-")): "SECRET_KEY (from the environment) is not base64: "
    "copy it whole, letters, digits, + and /, with the = at its end",
    (PUBLIC, SECRET.rstrip("=")): "SECRET_KEY (from the environment) is not base64: "
    "copy it whole, letters, digits, + and /, with the = at its end",
    (PUBLIC, "sëcret"): "SECRET_KEY (from the environment) is not base64: "
    "copy it whole, letters, digits, + and /, with the = at its end",
    (PUBLIC, "YWJj"): "SECRET_KEY (from the environment) holds 3 bytes where 32 (or 64) are "
    "needed: copy it again from the exchange",
    ("YWJj", SECRET): "PUBLIC_KEY (from the environment) holds 3 bytes where 32 are needed: "
    "copy it again from the exchange",
    (PUBLIC, SECRET + " "): "SECRET_KEY (from the environment) contains spaces or quotes: "
    "paste the key alone",
    (f'"{PUBLIC}"', SECRET): "PUBLIC_KEY (from the environment) contains spaces or quotes: "
    "paste the key alone",
    (OTHER_PUBLIC, SECRET): "PUBLIC_KEY (from the environment) does not belong to SECRET_KEY "
    "(from the environment): copy both again, from the same API key",
    (PUBLIC, SEED_AND_WRONG_PUBLIC): "PUBLIC_KEY (from the environment) does not belong to "
    "SECRET_KEY (from the environment): copy both again, from the same API key",
    (SECRET, PUBLIC): "PUBLIC_KEY and SECRET_KEY look swapped: exchange their values",
}


@pytest.mark.parametrize(("public", "secret"), REFUSALS)
def test_a_wrong_pair_is_refused_with_the_remedy(public: str, secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(public, secret)
    assert str(caught.value) == REFUSALS[(public, secret)]


@pytest.mark.parametrize(("public", "secret"), DEMO)
def test_the_printed_demo_pairs_are_for_simulators_only(public: str, secret: str) -> None:
    assert load(public, secret, real=False) is not None
    with pytest.raises(ConfigError, match="a demo pair printed in the exchange's guide"):
        load(public, secret, real=True)


def test_private_streams_need_a_key() -> None:
    with pytest.raises(ConfigError, match=r"account\.orderUpdate is a private stream and needs a"):
        require_key(None, ["trade.SOL_USDC", "account.orderUpdate"])


def test_public_streams_need_none_and_a_key_serves_private_ones() -> None:
    require_key(None, ["trade.SOL_USDC"])
    require_key(load(PUBLIC, SECRET), ["account.orderUpdate"])


@given(SEEDS)
def test_the_shown_text_of_a_key_depends_on_its_public_half_only(seed: bytes) -> None:
    public, secret = pair(seed)
    key = load(public, secret)
    assert key is not None
    shown = repr(key) + str(key) + f"{key}" + key.fingerprint
    assert secret not in shown
    assert seed.hex() not in shown
    assert repr(key) == f"AccountKey(fingerprint='{key.fingerprint}')"


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_cannot_be_pickled_or_copied(leave: object) -> None:
    assert callable(leave)
    with pytest.raises(TypeError, match="never pickled"):
        leave(load(PUBLIC, SECRET))


@given(st.text(), SEEDS)
def test_no_refusal_shows_the_given_key(public: str, seed: bytes) -> None:
    secret = base64.b64encode(seed).decode()
    with pytest.raises(ConfigError) as caught:
        load("x" + public, secret)
    assert secret not in str(caught.value)
