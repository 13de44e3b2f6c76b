"""Whether the account's keys are well-formed, present where needed, and accepted."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import httpx2

from bridge.errors import ConfigError
from bridge.runtime.bounded_file import MOST_SETTINGS, read_bounded
from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.config import Config
from bridge.runtime.config_sources import is_setting
from bridge.runtime.environment import is_open_to_others, value_files
from bridge.runtime.http_client import BadBody, fetch, http_client
from bridge.runtime.keys import PUBLIC_KEY, SECRET_KEY, AccountKey, load_key, require_key

SUBJECT = "keys"


def check_keys(
    config: Config, environ: Mapping[str, str], env_file: Path
) -> tuple[AccountKey | None, list[Finding]]:
    """The valid key pair or None, and the findings, which show its fingerprint, never a key."""
    try:
        key = load_key(environ, env_file, exchange_is_real=config.exchange.is_real)
        require_key(key, config.my_stream_names)
    except ConfigError as error:
        found, _, advice = str(error).partition(": ")
        return None, [
            Finding(Level.WRONG, SUBJECT, found, advice),
            *_check_files(environ, env_file),
        ]
    if key is None:
        beside = "" if env_file.exists() else f" (there is no {env_file})"
        found = f"none set{beside}, none needed: only public streams"
    else:
        found = f"a pair that fits, account fingerprint {key.fingerprint}"
    return key, [Finding(Level.OK, SUBJECT, found), *_check_files(environ, env_file)]


async def request_signed(
    rest_url: str, path: str, headers: Mapping[str, str], timeout_s: float
) -> Finding:
    """Send a signed request and report whether the exchange accepts the key pair."""
    try:
        async with http_client(rest_url, timeout_s) as client:
            await fetch(client, path, timeout_s, headers)
    except httpx2.HTTPStatusError as error:
        if error.response.is_client_error:
            found = f"the exchange refuses the pair ({error.response.status_code})"
            advice = "is the key still there, for this account, and is this machine's clock right?"
            return Finding(Level.PROBLEM, SUBJECT, found, advice)
        return _not_checked(str(error.response.status_code))
    except (ConfigError, httpx2.HTTPError, BadBody) as error:
        return _not_checked(str(error) or type(error).__name__)
    return Finding(Level.OK, SUBJECT, "the exchange accepts a request signed with them")


def _not_checked(reason: str) -> Finding:
    found = f"whether the exchange accepts them is not known: {reason}"
    return Finding(Level.NOT_CHECKED, SUBJECT, found)


def _check_files(environ: Mapping[str, str], env_file: Path) -> list[Finding]:
    """Warnings about files with secrets that other users can read or change."""

    def is_ours(name: str) -> bool:
        return name in (PUBLIC_KEY, SECRET_KEY) or is_setting(name)

    files = value_files(environ, env_file, is_ours)
    return _check_file(env_file) + [
        Finding(
            Level.WARNING,
            SUBJECT,
            f"{path}, which {name} names, may be read or changed by others on this machine",
            f"chmod o= {path}",
        )
        for name, path in files.items()
        if is_open_to_others(path)
    ]


def _check_file(env_file: Path) -> list[Finding]:
    """A warning where other users can read the `.env` file and it holds the secret key."""
    try:
        rights = stat.S_IMODE(env_file.stat().st_mode)
        secret = SECRET_KEY.encode() in read_bounded(env_file, MOST_SETTINGS)
    except OSError:
        return []
    if os.name != "posix" or not (secret and rights & 0o077):
        return []
    found = f"{env_file} holds a secret key, and others on this machine may read it"
    return [Finding(Level.WARNING, SUBJECT, found, f"chmod 600 {env_file}")]
