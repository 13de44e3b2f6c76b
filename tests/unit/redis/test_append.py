"""The bytes of a call of the append script, and its replies."""

import hiredis
import pytest

from bridge.contract.streams import GAP_LOG, parse_stream
from bridge.core.entries import Answer, Entry, Op, Slot, slot_of
from bridge.core.queue import Batch
from bridge.redis.append import (
    SHA,
    UNLIMITED,
    Limits,
    Retention,
    pack_append,
    pack_probe,
    read_answers,
)
from tests.support.queues import content, sequenced


def slot(**values: str) -> Slot:
    entry = Entry(Op.APPEND, tuple(values), list(values.values()), 5, 4, 1790915531025, 0)
    return slot_of(entry, 0, 0)


def packed(*slots: Slot, key: bytes = b"k", limits: Limits = UNLIMITED) -> bytes:
    return pack_append([(key, limits, Batch(sequenced(), slots))])


def read(command: bytes) -> list[str]:
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(command)
    return list(reader.gets())


def test_append_call_carries_key_limits_and_entries() -> None:
    command = packed(slot(type="trade", price="1.50"), key=b"trade.X", limits=Limits("100"))

    assert command == (
        b"*18\r\n$7\r\nEVALSHA\r\n$40\r\n" + SHA + b"\r\n$1\r\n1\r\n$7\r\ntrade.X\r\n"
        b"$1\r\n0\r\n$3\r\n100\r\n$0\r\n\r\n$2\r\n10\r\n"
        b"$1\r\nA\r\n$1\r\n4\r\n$1\r\n5\r\n$13\r\n1790915531025\r\n$1\r\n0\r\n"
        b"$1\r\n4\r\n$4\r\ntype\r\n$5\r\ntrade\r\n$5\r\nprice\r\n$4\r\n1.50\r\n"
    )


def test_append_call_counts_lengths_in_bytes() -> None:
    assert b"$8\r\n\xe5\xb8\x81_USDC\r\n" in packed(slot(symbol="币_USDC"))


@pytest.mark.parametrize("values", [{"a": "%d%s", "b": "%"}, {"a": "", "b": "\r\n$5"}])
def test_append_call_keeps_any_value_apart_from_its_framing(values: dict[str, str]) -> None:
    assert read(packed(slot(**values)))[-4:] == ["a", values["a"], "b", values["b"]]


def test_append_call_has_the_names_of_a_shape_once() -> None:
    same, other = slot(a="1", b="2"), slot(c="3")

    command = packed(same, other, same)

    assert read(command)[4:] == [
        *("2", "2", "a", "b", "1", "c"),
        *("", "", "20"),
        *("A", "4", "5", "1790915531025", "1", "1", "2"),
        *("A", "4", "5", "1790915531025", "2", "3"),
        *("A", "4", "5", "1790915531025", "1", "1", "2"),
    ]


def test_append_call_has_the_expected_id_on_the_first_content_entry_only() -> None:
    entry = Entry(Op.CONTENT, ("type",), ["x"], 7, 0, 9, 0)
    slots = [slot_of(entry, 0, 0), slot_of(entry, 0, 0)]

    command = pack_append([(b"k", UNLIMITED, Batch(content(), slots, "5-1"))])

    assert read(command)[10:] == ["C", "5-1", "7", "9", "1", "x", "C", "", "7", "9", "1", "x"]


def test_append_call_has_a_gaps_own_expected_id() -> None:
    entry = Entry(Op.GAP, ("type",), ["gap"], 7, 0, 9, 0, expected="5-40")

    command = read(packed(slot_of(entry, 0, 0)))

    assert command[8:] == ["G", "5-40", "7", "9", "0", "2", "type", "gap"]


def test_append_call_spells_half_a_surrogate_pair_out() -> None:
    assert packed(slot(text="\ud83d!")).endswith(b"$7\r\n\\ud83d!\r\n")


def test_append_probe_has_no_entries() -> None:
    assert read(pack_probe([b"k", b"l"]))[2:] == ["2", "k", "l", "0", *["", "", "0"] * 2]


def test_append_call_of_several_streams_has_their_shapes_once() -> None:
    first, other = slot(a="1"), slot(b="5")
    names = first.entry.names
    slots = [slot_of(first.entry._replace(names=names, values=[at]), 0, 0) for at in "1234"]
    batches = [Batch(sequenced(), each) for each in (slots[:2], slots[2:3], [slots[3], other])]

    command = pack_append(
        [
            (key, limits, batch)
            for key, limits, batch in zip(
                (b"k", b"l", b"m"), (UNLIMITED, UNLIMITED, Limits("9")), batches, strict=True
            )
        ]
    )

    assert read(command)[2:] == [
        *("3", "k", "l", "m", "2", "1", "a", "1", "b"),
        *("", "", "12", "A", "4", "5", "1790915531025", "1", "1"),
        *("A", "4", "5", "1790915531025", "1", "2"),
        *("", "", "8", "A", "4", "5", "1790915531025", "0", "2", "a", "3"),
        *("9", "", "12", "A", "4", "5", "1790915531025", "1", "4"),
        *("A", "4", "5", "1790915531025", "2", "5"),
    ]


def test_append_answers_are_read_for_each_stream() -> None:
    error = hiredis.ReplyError("WRONGTYPE no stream")

    answers = read_answers([[b"gap", 2, b"5-70", b"+="], error], 2)

    assert answers == [Answer("gap", 2, "5-70", "+="), error]


def test_append_error_reply_is_every_streams() -> None:
    error = hiredis.ReplyError("OOM no memory")

    assert read_answers(error, 2) == [error, error]


@pytest.mark.parametrize("reply", [None, 5, b"OK", [], [b"ok", 1], [[b"ok", 1]]])
def test_append_reply_of_another_shape_is_an_error(reply: object) -> None:
    [answer] = read_answers(reply, 1)

    assert isinstance(answer, hiredis.ReplyError)


def test_append_retention_is_by_type_and_for_own_streams_by_name() -> None:
    limits = {"trade": Limits("5"), "gaps": Limits("6")}
    retention = Retention(limits)

    assert retention.of(parse_stream("trade.A_USDC")) == Limits("5")
    assert retention.of(GAP_LOG) == Limits("6")
    assert retention.of(parse_stream("depth.A_USDC")) == UNLIMITED


def test_append_retention_that_waits_for_groups_limits_own_streams_only() -> None:
    limits = {"trade": Limits("5"), "gaps": Limits("6")}
    retention = Retention(limits, waits_for_groups=True)

    assert retention.of(parse_stream("trade.A_USDC")) == UNLIMITED
    assert retention.kept(parse_stream("trade.A_USDC")) == Limits("5")
    assert retention.of(GAP_LOG) == Limits("6")
