"""Addresses to listen on: `127.0.0.1:9464`, `[::1]:9464`, `localhost:0`."""

import re
from dataclasses import dataclass
from typing import Self

_WRITTEN = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})"
)
MUST = "must be host:port, such as 127.0.0.1:9464 or [::1]:9464 (port 0: a free one)"


@dataclass(frozen=True, slots=True)
class Address:
    """A host, or an address of this machine, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `host:port`. Raises ValueError with a sentence for the user."""
        found = _WRITTEN.fullmatch(text)
        if found is None or int(found["port"]) > 65_535 or not _can_be_resolved(found["host"]):
            raise ValueError(MUST)
        return cls(found["six"] or found["host"], int(found["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _can_be_resolved(host: str | None) -> bool:
    """Whether the name can be looked up; `a..b` raises in the resolver."""
    try:
        (host or "").encode("idna")
    except UnicodeError:
        return False
    return True
