"""A call of the append script, byte for byte, and its answers."""

import hiredis
import pytest

from bridge.pipeline.items import Answer, Item, Op
from bridge.publish.append import SHA, pack_append, read_answer


def item(**values: str) -> Item:
    return Item(Op.APPEND, "4", 5, 1790915531025, tuple(values), list(values.values()), 0)


def test_a_call_carries_key_limits_and_items() -> None:
    packed = pack_append(b"trade.X", b"100", b"", [item(type="trade", price="1.50")])

    assert packed == (
        b"*17\r\n$7\r\nEVALSHA\r\n$40\r\n" + SHA + b"\r\n$1\r\n1\r\n$7\r\ntrade.X\r\n"
        b"$3\r\n100\r\n$0\r\n\r\n"
        b"$1\r\n1\r\n$1\r\n2\r\n$4\r\ntype\r\n$5\r\nprice\r\n"
        b"$1\r\nA\r\n$1\r\n4\r\n$1\r\n5\r\n$13\r\n1790915531025\r\n$1\r\n1\r\n"
        b"$5\r\ntrade\r\n$4\r\n1.50\r\n"
    )


def test_lengths_are_counted_in_bytes() -> None:
    packed = pack_append(b"k", b"", b"", [item(symbol="币_USDC")])

    assert b"$8\r\n\xe5\xb8\x81_USDC\r\n" in packed


@pytest.mark.parametrize("values", [{"a": "%d%s", "b": "%"}, {"a": "", "b": "\r\n$5"}])
def test_values_are_never_read_as_anything_else(values: dict[str, str]) -> None:
    packed = pack_append(b"k", b"", b"", [item(**values)])

    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(packed)
    assert reader.gets()[-2:] == [values["a"], values["b"]]


def test_the_names_of_a_shape_come_once() -> None:
    same, other = item(a="1", b="2"), item(c="3")

    packed = pack_append(b"k", b"", b"", [same, other, same])

    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(packed)
    assert reader.gets()[6:] == [
        *("2", "2", "a", "b", "1", "c"),
        *("A", "4", "5", "1790915531025", "1", "1", "2"),
        *("A", "4", "5", "1790915531025", "2", "3"),
        *("A", "4", "5", "1790915531025", "1", "1", "2"),
    ]


def test_half_a_surrogate_pair_is_spelled_out() -> None:
    packed = pack_append(b"k", b"", b"", [item(text="\ud83d!")])

    assert packed.endswith(b"$7\r\n\\ud83d!\r\n")


def test_an_answer_is_read() -> None:
    assert read_answer([b"hole", 2, b"5-70", b"+="]) == Answer("hole", 2, "5-70", "+=")


def test_an_error_stays_an_error() -> None:
    error = hiredis.ReplyError("WRONGTYPE no stream")

    assert read_answer(error) is error


@pytest.mark.parametrize("reply", [None, 5, b"OK", [], [b"ok", 1]])
def test_an_answer_of_another_shape_is_an_error(reply: object) -> None:
    assert isinstance(read_answer(reply), hiredis.ReplyError)
