"""Recipe: two markets with one state: the premium of the perpetual over the spot market.

    python -m consumers run examples.spread:Spread
    redis-cli HGETALL 'consumers:{joined.SOL}:spread'
    redis-cli XREVRANGE 'consumers:{joined.SOL}:spread:values' + - COUNT 3

`joined` delivers the entries of both streams in the order of the exchange's time, to one object
with one state. So each value is made of the two prices that were valid at that moment, whichever
stream was read first, also when workers are killed, or share many such pairs.
"""

from decimal import Decimal

from backpack_bridge import BookTicker, Consumer, Delivery, Gap, Results

_PERPETUAL = "_USDC_PERP"


class Spread(Consumer):
    """The mid price of a perpetual minus that of its spot market."""

    name = "spread"
    mode = "joined"
    streams = ("bookTicker.*_USDC", "bookTicker.*_USDC_PERP")

    def joined_by(self, stream: str) -> str:
        """The asset, for one state per asset: SOL for SOL_USDC and SOL_USDC_PERP."""
        return stream.removeprefix("bookTicker.").removesuffix("_PERP").removesuffix("_USDC")

    def on_book_ticker(self, delivery: Delivery[BookTicker], results: Results) -> None:
        """Keep this market's mid price; write the spread once both prices are known."""
        ticker = delivery.event
        leg = "perpetual" if ticker.symbol.endswith(_PERPETUAL) else "spot"
        if not ticker.bid_price or not ticker.ask_price:
            return
        self.state[leg] = str((Decimal(ticker.bid_price) + Decimal(ticker.ask_price)) / 2)
        if "spot" in self.state and "perpetual" in self.state:
            spread = Decimal(self.state["perpetual"]) - Decimal(self.state["spot"])
            value = {"spread": f"{spread:f}", "after": delivery.entry_id, "of": ticker.symbol}
            results.hset("", value)
            results.xadd("values", "*", value, keep_entries=10_000)

    def on_gap(self, delivery: Delivery[Gap]) -> None:
        """Forget the market's price, which is unknown after a gap until the next ticker."""
        self.state.pop("perpetual" if delivery.stream.endswith(_PERPETUAL) else "spot", None)
