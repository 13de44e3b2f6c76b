"""What can go wrong, sorted by what to do about it.

    BridgeError
    ├── Transient     trying again may help: a connection, a server that is loading
    └── Fatal         a person must act: configuration, keys, rights
        └── ConfigError

Messages say what, where and what to do next, and never carry a secret or a private payload.
"""


class BridgeError(Exception):
    """Root of everything this project raises on purpose."""


class Transient(BridgeError):
    """Trying again may help."""


class Fatal(BridgeError):
    """A person must act; trying again cannot help."""


class ConfigError(Fatal):
    """Configuration, environment or command line is wrong: exit code 2."""
