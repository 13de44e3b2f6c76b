"""Every event is read back unchanged from its entry, with all digits."""

import json

from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.entry import decode, encode, field_names
from bridge.contract.events import Event
from bridge.contract.streams import parse_stream
from bridge.core.translate import Rejected, translate
from bridge.protocol.envelope import Data, parse

decimals = st.from_regex(r"\A[0-9]{1,24}(\.[0-9]{1,30})?\Z").filter(lambda text: text.isascii())
signed = st.builds(lambda sign, text: sign + text, st.sampled_from(["", "-"]), decimals)
whole = st.integers(0, 2**64 - 1)
levels = st.lists(st.tuples(decimals, decimals).map(list), max_size=5)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
unknown = st.dictionaries(
    st.text(st.sampled_from("éxyz_0"), min_size=3, max_size=9),
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | words,
    max_size=3,
)

trades = st.fixed_dictionaries(
    {"e": st.just("trade"), "E": whole, "T": whole, "s": words, "p": decimals, "q": decimals,
     "t": whole, "a": words, "b": words, "m": st.booleans()}
)  # fmt: skip
depths = st.fixed_dictionaries(
    {"e": st.just("depth"), "E": whole, "T": whole, "s": words, "U": whole, "u": whole,
     "a": levels, "b": levels}
)  # fmt: skip
positions = st.fixed_dictionaries(
    {"E": whole, "T": whole, "s": words, "q": signed, "Q": signed, "p": signed, "i": whole},
    optional={"e": st.sampled_from(["positionOpened", "positionClosed"]), "B": signed, "l": signed},
)


def translated(stream: str, payload: dict[str, object]) -> Event:
    frame = json.dumps({"data": payload, "stream": stream})
    data = parse(frame)
    assert isinstance(data, Data)
    event = translate(parse_stream(stream), data, frame, 1)
    assert not isinstance(event, Rejected), event
    return event


@given(
    st.tuples(st.just("trade.X"), trades)
    | st.tuples(st.just("depth.X"), depths)
    | st.tuples(st.just("account.positionUpdate"), positions),
    unknown,
)
def test_any_event_is_read_back_unchanged_from_its_entry(
    message: tuple[str, dict[str, object]], more: dict[str, object]
) -> None:
    stream, payload = message

    event = translated(stream, {**more, **payload})

    entry = dict(zip(field_names(type(event)), encode(event), strict=True))
    assert decode(entry) == event


@given(depths)
def test_levels_keep_their_digits_and_their_order(payload: dict[str, object]) -> None:
    event = translated("depth.X", dict(payload))

    entry = dict(zip(field_names(type(event)), encode(event), strict=True))
    assert json.loads(entry["bids"]) == payload["b"]
    assert json.loads(entry["asks"]) == payload["a"]
