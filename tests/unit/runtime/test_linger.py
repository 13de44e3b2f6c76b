import asyncio
import os
import selectors
from collections.abc import Iterator

import pytest

from bridge.runtime.linger import LingeringSelector, run_lingering

LINGER_S = 0.02


class Pipe:
    """A pipe whose read end is registered with a selector."""

    def __init__(self, selector: LingeringSelector) -> None:
        self.reads, self._writes = os.pipe()
        selector.register(self.reads, selectors.EVENT_READ)

    def write(self) -> None:
        os.write(self._writes, b"x")

    def read(self) -> None:
        os.read(self.reads, 1)

    def close(self) -> None:
        os.close(self.reads)
        os.close(self._writes)


class Lingering:
    """A selector with two pipes. `sleeps` has its pauses in s; if `comes_meanwhile`, the second
    pipe is written to during each pause.
    """

    def __init__(self) -> None:
        self.sleeps: list[float] = []
        self.comes_meanwhile = False
        self.selector = LingeringSelector(LINGER_S, self._sleep)
        self.first, self.second = Pipe(self.selector), Pipe(self.selector)

    def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if self.comes_meanwhile:
            self.second.write()

    def select(self, timeout: float | None = 5) -> set[int]:
        """The readable file descriptors."""
        return {key.fd for key, _ in self.selector.select(timeout)}

    def take_first(self) -> None:
        """Write, select and read a message on the first pipe."""
        self.first.write()
        assert self.select() == {self.first.reads}
        self.first.read()


@pytest.fixture
def lingering() -> Iterator[Lingering]:
    one = Lingering()
    yield one
    one.selector.close()
    one.first.close()
    one.second.close()


def test_first_message_after_a_rest_is_given_at_once(lingering: Lingering) -> None:
    lingering.take_first()
    assert lingering.sleeps == []


def test_messages_within_the_pause_after_a_message_are_returned_together(
    lingering: Lingering,
) -> None:
    lingering.take_first()
    lingering.comes_meanwhile = True
    assert lingering.select() == {lingering.second.reads}
    assert lingering.sleeps == [LINGER_S]


def test_there_is_no_pause_while_something_is_readable(lingering: Lingering) -> None:
    lingering.take_first()
    lingering.first.write()
    assert lingering.select() == {lingering.first.reads}
    assert lingering.sleeps == []


def test_timer_that_is_due_sooner_ends_the_pause(lingering: Lingering) -> None:
    lingering.take_first()
    assert lingering.select(LINGER_S / 4) == set()
    assert lingering.sleeps == [LINGER_S / 4]


def test_loop_that_has_something_to_do_does_not_pause(lingering: Lingering) -> None:
    lingering.take_first()
    assert lingering.select(0) == set()
    assert lingering.sleeps == []


def test_after_a_pause_that_brought_nothing_there_is_none_until_something_comes(
    lingering: Lingering,
) -> None:
    lingering.take_first()
    assert lingering.select(LINGER_S + 0.001) == set()
    assert lingering.select(LINGER_S + 0.001) == set()
    assert lingering.sleeps == [LINGER_S]


def test_wait_without_an_end_has_a_pause_too(lingering: Lingering) -> None:
    lingering.take_first()
    lingering.comes_meanwhile = True
    assert lingering.select(None) == {lingering.second.reads}
    assert lingering.sleeps == [LINGER_S]


@pytest.mark.parametrize(("linger_s", "lingers"), [(0.0, False), (0.001, True)])
def test_program_runs_on_a_lingering_loop_only_if_requested(
    linger_s: float, *, lingers: bool
) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        selector = loop._selector  # type: ignore[attr-defined]
        return int(isinstance(selector, LingeringSelector))

    assert run_lingering(main(), linger_s) == lingers
