"""The key of a command in the Redis client's spelling."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.runtime.redis_shards import key_of


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("XLEN", "k"), "k"),
        (("XINFO STREAM", "k"), "k"),
        (("XINFO", "STREAM", "k"), "k"),
        (("XGROUP CREATE", b"k", "g", "$"), "k"),
        (("EVALSHA", "sha", 2, "k", "l", "argument"), "k"),
        (("EVAL", "script", "0", "argument"), ""),
        (("XREAD", b"COUNT", 5, b"BLOCK", 10, b"STREAMS", "k", "l", "0", "0"), "k"),
        (("XREADGROUP", "GROUP", "STREAM", "c", "STREAMS", "k", ">"), "k"),
        (("SCAN", "0", b"MATCH", "{a}*", b"COUNT", 5), "{a}*"),
        (("SCAN", "0"), ""),
        (("TIME",), ""),
    ],
)
def test_key_of_a_command_is_found(command: tuple[Any, ...], key: str) -> None:
    assert key_of(command) == key


@given(st.text(), st.lists(st.text()))
def test_key_of_a_script_is_the_first_one_for_any_arguments(key: str, rest: list[str]) -> None:
    assert key_of(("EVALSHA", "sha", 1, key, *rest)) == key
