"""The public names of `backpack_bridge` and `consumers`."""

import ast
from pathlib import Path

import pytest

import backpack_bridge.testing
import consumers.testing
from bridge.contract.entry import MODELS

SOURCE = Path(consumers.__file__).read_text("utf-8")


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in consumers.__all__ if getattr(consumers, name, None) is None] == []


def test_type_checkers_see_every_public_name_and_no_other() -> None:
    tree = ast.parse(SOURCE)
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    typed = [alias.name for node in ast.walk(block) if isinstance(node, ast.ImportFrom)
             for alias in node.names]  # fmt: skip
    assert sorted(typed) == sorted(consumers.__all__)


def test_every_event_of_the_contract_is_a_public_name() -> None:
    models = {model.__name__ for model in MODELS}
    assert models - set(consumers.__all__) == set()


def test_every_public_class_and_function_states_what_it_is_for() -> None:
    constants = {"KLINE_INTERVALS", "Best", "Level"}
    named = [name for name in consumers.__all__ if name not in constants]
    assert [name for name in named if not (getattr(consumers, name).__doc__ or "").strip()] == []


def test_the_public_package_has_the_same_names_and_objects() -> None:
    assert backpack_bridge.__all__ == consumers.__all__
    assert all(
        getattr(backpack_bridge, name) is getattr(consumers, name) for name in consumers.__all__
    )
    assert set(consumers.__all__) <= set(dir(backpack_bridge))


def test_the_public_package_passes_on_all_that_tests_of_consumers_need() -> None:
    assert backpack_bridge.testing.__all__ == consumers.testing.__all__


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'backpack_bridge' has no attribute 'Tade'"):
        backpack_bridge.Tade  # noqa: B018
