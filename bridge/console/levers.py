"""Actions that a visitor may trigger in a system under view: the demo's faults. A console of a
real system has none."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Lever(NamedTuple):
    """One action: its name, its button's label, and its effect and duration."""

    name: str
    label: str
    hint: str


class Levers(Protocol):
    """All actions. `state` is one line: the current fault, and the result of the last one."""

    @property
    def all(self) -> Sequence[Lever]: ...

    @property
    def state(self) -> str: ...

    async def pull(self, name: str) -> str:
        """Trigger an action; returns a sentence for the user. Raises KeyError if unknown."""
        ...


class NoLevers:
    """No actions."""

    all: Sequence[Lever] = ()
    state = ""

    async def pull(self, name: str) -> str:
        raise KeyError(name)
