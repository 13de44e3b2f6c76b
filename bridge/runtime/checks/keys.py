"""Whether the account's keys are right, and are there where they are needed."""

from collections.abc import Mapping
from pathlib import Path

from bridge.errors import ConfigError
from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.config import Config
from bridge.runtime.keys import load_key, require_key


def look_at_keys(config: Config, environ: Mapping[str, str], env_file: Path) -> Finding:
    """One finding. Says which account by fingerprint, never a key."""
    try:
        key = load_key(environ, env_file, exchange_is_real=config.exchange.is_real)
        require_key(key, config.stream_names)
    except ConfigError as error:
        found, _, advice = str(error).partition(": ")
        return Finding(Level.WRONG, "keys", found, advice)
    if key is None:
        beside = "" if env_file.exists() else f" (there is no {env_file})"
        return Finding(Level.OK, "keys", f"none set{beside}, none needed: only public streams")
    return Finding(Level.OK, "keys", f"a pair that fits, account fingerprint {key.fingerprint}")
