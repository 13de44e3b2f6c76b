"""The ledger of holes, `bridge:gaps`: one line for each, mended or not (pure).

It is a stream like the quarantine, told by content: the same hole noted again is one line.
"""

from bridge.contract import keys
from bridge.contract.events import GapRecord
from bridge.contract.streams import Stream, StreamType
from bridge.pipeline.items import Item, unnumbered
from bridge.pipeline.trade_holes import Mended
from bridge.pipeline.unnumbered import UnnumberedLine

NEVER_WERE = "no such trades"
HISTORY = "history"
_MAKES_UP = {  # what follows a gap that nothing can fill
    StreamType.DEPTH: "snapshot",
    StreamType.ORDER_UPDATE: "fills, snapshot",
    StreamType.POSITION_UPDATE: "snapshot",
    StreamType.BALANCE_UPDATE: "snapshot",
}
_OF_A_GAP = ("symbol", "from", "to", "from_us", "to_us", "cause", "received_us")


def new_ledger() -> UnnumberedLine:
    """Its line."""
    return UnnumberedLine(Stream(keys.GAPS, StreamType.LIQUIDATION))


def of_gap(stream: Stream, item: Item) -> Item:
    """A gap that was written into a stream."""
    gap = dict(zip(item.names, item.values, strict=True))
    facts = {name: gap[name] or None for name in _OF_A_GAP}
    how = _MAKES_UP.get(stream.type)
    return _record(facts | {"stream": stream.name, "repaired": False, "how": how})


def of_mended(stream: Stream, mended: Mended, received_us: int) -> Item:
    """A hole of which nothing is missing any more."""
    return _record(
        {
            "symbol": stream.symbol or None,
            "stream": stream.name,
            "from": mended.from_,
            "to": mended.to,
            "cause": mended.cause,
            "repaired": True,
            "how": HISTORY if mended.rows else NEVER_WERE,
            "received_us": received_us,
        }
    )


def of_unseen(stream: Stream, from_: int, to: int, cause: str, received_us: int) -> Item:
    """Trades that turned out to be missing when it was too late for a gap at their place."""
    return _record(
        {
            "symbol": stream.symbol or None,
            "stream": stream.name,
            "from": from_,
            "to": to,
            "cause": cause,
            "repaired": False,
            "received_us": received_us,
        }
    )


def _record(facts: dict[str, object]) -> Item:
    record = GapRecord.model_validate(facts)
    return unnumbered(record, record.received_us)
