"""The index of a stream's messages by content."""

from bridge.contract.identity import EntryId
from bridge.core.entries import Entry, Op
from bridge.inspect.index import Match, SequencedIndex
from bridge.inspect.stored import digest
from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.kept import stored

LATER_US = START_US + 60_000_000


def index_of(*trades: tuple[int, Fields]) -> SequencedIndex:
    index = SequencedIndex()
    for number, fields in trades:
        place = entry_id(int(fields["engine_us"]), number)
        [one] = stored({place: fields})
        index.add(one, EntryId.parse(place), digest(one.names, one.values))
    index.close()
    return index


def received(number: int, fields: Fields) -> Entry:
    names, values = tuple(fields), list(fields.values())
    return Entry(Op.APPEND, names, values, number, number - 1, 0, 0)


def test_a_number_that_was_given_twice_is_found_in_each_numbering() -> None:
    before, behind = trade(101, START_US), trade(101, LATER_US)
    index = index_of((101, before), (102, trade(102, START_US + 1000)), (101, behind))

    assert index.find(received(101, before)) is Match.SAME
    assert index.find(received(101, behind)) is Match.SAME
    assert index.find(received(101, behind)) is Match.AGAIN
    assert index.unseen() == 1


def test_a_number_with_another_content_counts_as_found() -> None:
    index = index_of((101, trade(101, START_US)))

    assert index.find(received(101, trade(101, START_US, price="1.00"))) is Match.OTHER
    assert index.unseen() == 0
