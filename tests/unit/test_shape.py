"""Limits on the shape of the bridge's code: callbacks, foreign writes, chains, module sizes."""

from pathlib import Path

import pytest

from tests.support.shape import Shape, folders, of_modules, of_source

BRIDGE = Path(__file__).parents[2] / "bridge"
HARD_PACKAGES = ("core", "journal", "redis", "feed")


@pytest.fixture(scope="module")
def packages() -> dict[str, Shape]:
    return {name: of_modules(paths) for name, paths in folders(BRIDGE).items()}


@pytest.fixture(scope="module")
def bridge(packages: dict[str, Shape]) -> Shape:
    return sum(packages.values(), Shape())


def test_bridge_constructors_take_at_most_one_callback_in_a_thousand_lines(bridge: Shape) -> None:
    assert bridge.per_thousand(bridge.callbacks) <= 1


def test_bridge_objects_seldom_write_another_objects_attributes(bridge: Shape) -> None:
    assert bridge.per_thousand(bridge.stores) <= 2


def test_bridge_seldom_reads_through_two_objects(bridge: Shape) -> None:
    assert bridge.per_thousand(bridge.chains) <= 3


def test_bridge_has_no_module_over_seven_hundred_lines(bridge: Shape) -> None:
    assert bridge.longest <= 700


@pytest.mark.parametrize("package", HARD_PACKAGES)
def test_packages_of_hard_logic_give_reasons_in_comments(
    package: str, packages: dict[str, Shape]
) -> None:
    assert packages[package].comment_percent >= 2


def test_shape_counts_callbacks_stores_chains_and_comments_of_a_module() -> None:
    source = """
class One:
    name: str
    on_end: Callable[[], None]

    def __init__(self, other: Other, wake: Callable[[], None], clock: Callable[[], int]) -> None:
        self.other = other  # kept
        other.owner = self
        self.other.count += 1

    def look(self) -> int:
        # two objects away
        return self.other.inner.count
"""
    assert of_source(source) == Shape(13, callbacks=2, stores=1, chains=1, comments=2, longest=13)
