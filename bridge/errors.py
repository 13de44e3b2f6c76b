"""The exceptions, by what to do about them.

    BridgeError
    ├── Transient     trying again may help: a connection, a server that is loading
    └── Fatal         the user must act: configuration, keys, rights
        └── ConfigError

Messages name the fault, its place and what to do, and never contain a secret or a private payload.
"""


class BridgeError(Exception):
    """The base of all exceptions of this project."""


class Transient(BridgeError):
    """Trying again may help."""


class Fatal(BridgeError):
    """The user must act; trying again cannot help."""


class ConfigError(Fatal):
    """The configuration, environment or command line is invalid: exit code 2."""
