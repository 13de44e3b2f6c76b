"""What the owner of a system under view may let a visitor do to it: the demo's way of breaking
things. A console of a real system has none."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Lever(NamedTuple):
    """One thing to do: its name, what its button says, and what it does and for how long."""

    name: str
    label: str
    hint: str


class Levers(Protocol):
    """All of them. `state` is one line: what is broken now, and what became of it."""

    @property
    def all(self) -> Sequence[Lever]: ...

    @property
    def state(self) -> str: ...

    async def pull(self, name: str) -> str:
        """Do it; returns a sentence for who did. Raises KeyError where there is none."""
        ...


class NoLevers:
    """None at all."""

    all: Sequence[Lever] = ()
    state = ""

    async def pull(self, name: str) -> str:
        raise KeyError(name)
