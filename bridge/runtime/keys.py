"""The account's key pair: PUBLIC_KEY and SECRET_KEY, from the environment, `.env`, or the files
named by PUBLIC_KEY_FILE and SECRET_KEY_FILE.

Refuses keys that the exchange would reject later with a bare "Invalid signature". Knows Ed25519 and
base64, not what is signed. No message and no repr shows the secret.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.contract.streams import is_private
from bridge.errors import ConfigError
from bridge.runtime.environment import Variable, read_variables
from bridge.runtime.masking import hide, passwords_in

PUBLIC_KEY = "PUBLIC_KEY"
SECRET_KEY = "SECRET_KEY"
_PAIR = (PUBLIC_KEY, SECRET_KEY)

# Of the two pairs printed in the exchange's Python guide: they are public.
_DEMO_FINGERPRINTS = frozenset({"a0db34e5b14d51e1", "d37ee8bb8a95a97d"})


class AccountKey:
    """An account's key pair. Its repr shows a fingerprint only, and it cannot be pickled."""

    __slots__ = ("_private", "fingerprint", "public_key_b64")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        public = private.public_key().public_bytes_raw()
        self._private = private
        self.public_key_b64 = base64.b64encode(public).decode("ascii")
        self.fingerprint = fingerprint_of(public)

    def sign(self, message: bytes) -> str:
        """The Ed25519 signature of `message`, in base64."""
        return base64.b64encode(self._private.sign(message)).decode("ascii")

    def __repr__(self) -> str:
        return f"AccountKey(fingerprint={self.fingerprint!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AccountKey is never pickled or copied: load it where it is used")


def fingerprint_of(public_key: bytes) -> str:
    """The first 16 hex digits of the public key's SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def load_key(
    environ: Mapping[str, str] = os.environ,
    env_file: str | Path | None = ".env",
    *,
    exchange_is_real: bool,
) -> AccountKey | None:
    """The account's key, or None where neither variable is set. Raises ConfigError."""
    variables = read_variables(environ, env_file, _PAIR.__contains__)
    public, secret = variables.get(PUBLIC_KEY), variables.get(SECRET_KEY)
    if public is None and secret is None:
        return None
    if public is None or secret is None:
        missing, given = (PUBLIC_KEY, SECRET_KEY) if public is None else (SECRET_KEY, PUBLIC_KEY)
        raise ConfigError(f"{given} is set but {missing} is not: set both, or neither")
    hide([secret.value])
    key = _paired(public, secret)
    if exchange_is_real and key.fingerprint in _DEMO_FINGERPRINTS:
        raise ConfigError(
            "PUBLIC_KEY and SECRET_KEY are a demo pair printed in the exchange's guide, publicly "
            "known: create your own API key at the exchange"
        )
    return key


def require_key(key: AccountKey | None, stream_names: Iterable[str]) -> None:
    """Raises ConfigError where there are private streams and no key."""
    private = [name for name in stream_names if is_private(name)]
    if private and key is None:
        raise ConfigError(
            f"{private[0]} is a private stream and needs a key: set PUBLIC_KEY and SECRET_KEY in "
            "the environment or in .env (or PUBLIC_KEY_FILE and SECRET_KEY_FILE), or take the "
            "account.* names out of streams"
        )


def secret_texts(
    redis_url: str, environ: Mapping[str, str] = os.environ, env_file: str | Path | None = ".env"
) -> tuple[str, ...]:
    """The texts to mask in logs: the secret key as written, and the passwords of the Redis URL;
    may be empty.
    """
    try:
        secret = read_variables(environ, env_file, (SECRET_KEY,).__contains__).get(SECRET_KEY)
    except ConfigError:  # an unreadable secret cannot be shown; `load_key` reports it
        secret = None
    return (*((secret.value,) if secret else ()), *passwords_in(redis_url))


def _paired(public: Variable, secret: Variable) -> AccountKey:
    public_bytes, secret_bytes = _decoded(public), _decoded(secret)
    if len(public_bytes) != 32:
        raise ConfigError(_wrong_length(public, public_bytes, "32"))
    if len(secret_bytes) not in (32, 64):
        raise ConfigError(_wrong_length(secret, secret_bytes, "32 (or 64)"))
    key = AccountKey(Ed25519PrivateKey.from_private_bytes(secret_bytes[:32]))
    fits = base64.b64decode(key.public_key_b64) == public_bytes
    if fits and secret_bytes[32:] in (b"", public_bytes):
        return key
    if _public_of(public_bytes) == secret_bytes:
        raise ConfigError("PUBLIC_KEY and SECRET_KEY look swapped: exchange their values")
    raise ConfigError(
        f"PUBLIC_KEY (from {public.origin}) does not belong to SECRET_KEY (from {secret.origin}): "
        "copy both again, from the same API key"
    )


def _public_of(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _decoded(variable: Variable) -> bytes:
    where = f"{variable.name} (from {variable.origin})"
    if any(c.isspace() or c in "\"'`" for c in variable.value):
        raise ConfigError(f"{where} contains spaces or quotes: paste the key alone")
    try:
        return base64.b64decode(variable.value, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(
            f"{where} is not base64: copy it whole, letters, digits, + and /, with the = at its end"
        ) from None


def _wrong_length(variable: Variable, decoded: bytes, expected: str) -> str:
    return (
        f"{variable.name} (from {variable.origin}) holds {len(decoded)} bytes where {expected} "
        "are needed: copy it again from the exchange"
    )
