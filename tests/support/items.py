"""Events and items for tests of the lines, made from the exchange's own spelling."""

from bridge.contract.events import Depth, OrderUpdate, Ticker, Trade
from bridge.contract.streams import parse_stream
from bridge.pipeline.items import Answer, Item, numbered, unnumbered

NOW_US = 1_790_915_531_000_000
TRADES = parse_stream("trade.SOL_USDC")
ORDERS = parse_stream("account.orderUpdate")
TICKERS = parse_stream("ticker.SOL_USDC")


def trade_event(number: int, engine_us: int = NOW_US) -> Trade:
    return Trade.model_validate(
        {"e": "trade", "s": "SOL_USDC", "p": "98.97", "q": "1", "t": number, "m": False,
         "E": engine_us, "T": engine_us, "received_us": engine_us}
    )  # fmt: skip


def trade(number: int, engine_us: int = NOW_US, heard_us: int | None = None) -> Item:
    return numbered(trade_event(number, engine_us), heard_us or engine_us)


def delta(
    first: int, last: int, bids: object = (), asks: object = (), engine_us: int = NOW_US
) -> Depth:
    return Depth.model_validate(
        {"e": "depth", "s": "SOL_USDC", "U": first, "u": last, "b": list(bids), "a": list(asks),
         "E": engine_us, "T": engine_us, "received_us": engine_us}
    )  # fmt: skip


def order_event(order_id: str = "9", engine_us: int = NOW_US, event_us: int = 0) -> OrderUpdate:
    return OrderUpdate.model_validate(
        {"e": "orderAccepted", "s": "SOL_USDC", "i": order_id, "S": "Bid", "o": "LIMIT",
         "X": "New", "E": event_us or engine_us, "T": engine_us, "received_us": engine_us}
    )  # fmt: skip


def order(order_id: str = "9", engine_us: int = NOW_US) -> Item:
    return unnumbered(order_event(order_id, engine_us), engine_us)


def ticker(event_us: int, last_price: str = "98.97") -> Item:
    event = Ticker.model_validate(
        {"e": "ticker", "s": "SOL_USDC", "o": "1", "c": last_price, "h": "1", "l": "1", "v": "1",
         "V": "1", "n": 1, "E": event_us, "received_us": event_us}
    )  # fmt: skip
    return unnumbered(event, event_us)


def answer(status: str, last: str, signs: str = "") -> Answer:
    return Answer(status, len(signs), last, signs)


def fields(item: Item) -> dict[str, str]:
    return dict(zip(item.names, item.values, strict=True))
