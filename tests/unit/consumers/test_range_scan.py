"""A range scan's use of a replica's replies."""

from bridge.runtime.keyspace import KeySpace
from consumers.kit.reading.range_scan import FIRST, LAST, PAGE_ENTRIES, RangeScan
from consumers.kit.redis.keys import Keys

ABOUT = {"last-generated-id": "900-0", "first-entry": ("1-0", {}), "length": 9, "entries-added": 9}
ENTRIES = [(f"{number}-0", {"a": "b"}) for number in range(1, PAGE_ENTRIES + 1)]


def test_scan_uses_full_pages_of_a_replica_but_not_its_end_or_errors() -> None:
    scan = RangeScan("trade.A", Keys(KeySpace()), FIRST, LAST)
    assert not scan.is_whole([ABOUT, ["trade.A"]])  # only the primary's reply fixes the end
    scan.take([ABOUT, ["trade.A"]])
    assert scan.is_whole([ENTRIES, ENTRIES[:1]])
    for replies in ([ENTRIES[:-1], ENTRIES[:1]], [[], []], [ConnectionError(), []], []):
        assert not scan.is_whole(replies)
