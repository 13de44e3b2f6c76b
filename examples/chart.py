"""Draws the last minutes of a market: price, volume, and where something may be missing.

    python examples/chart.py SOL_USDC --minutes 15 --out chart.png

Needs the extras `pandas` and `chart`. The lines between the `# %%` marks are also cells of a
notebook: editors that know them run one at a time.
"""

# %% What to draw
import argparse
from datetime import timedelta
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # to a file; a notebook brings its own
from matplotlib import pyplot as plt

from backpack_bridge import Gap, Trade, read

BARS = 90  # of volume, over the whole width


# %% Read a stretch of the stream into a frame: one line
def trades_of(symbol: str, minutes: float) -> Any:
    """The trades as a frame; decimals as floats are good enough to draw."""
    return read(f"trade.{symbol}", timedelta(minutes=minutes), of=Trade).to_pandas("float")


# %% Draw it
def draw(symbol: str, trades: Any, gaps: Any) -> Any:
    """Price above, volume below, a line over both where a gap is."""
    figure, (above, below) = plt.subplots(
        2, sharex=True, figsize=(11, 6), height_ratios=(3, 1), layout="constrained"
    )
    above.step(trades["time"], trades["price"], where="post", linewidth=0.9, color="tab:blue")
    above.set_title(f"{symbol}: {len(trades):,} trades")
    above.set_ylabel("price")

    width = (trades["time"].iloc[-1] - trades["time"].iloc[0]) / BARS or timedelta(seconds=1)
    for is_sell, colour, side in ((False, "tab:green", "bought"), (True, "tab:red", "sold")):
        volume = trades[trades["buyer_is_maker"] == is_sell].resample(width, on="time")["quantity"]
        summed = volume.sum() * (-1 if is_sell else 1)
        below.bar(summed.index, summed, width=width, align="edge", color=colour, label=side)
    below.axhline(0, color="black", linewidth=0.5)
    below.set_ylabel("volume by taker")
    below.set_xlabel("UTC")

    for number, gap in enumerate(gaps.itertuples()):
        for axes in (above, below):
            label = "gap" if number == 0 and axes is below else None
            axes.axvline(gap.time, color="tab:orange", linewidth=2, alpha=0.6, label=label)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


# %% From the command line
def main() -> None:
    """Draw what the arguments say."""
    asked = argparse.ArgumentParser(description="Draw the last minutes of a market's trades.")
    asked.add_argument("symbol", nargs="?", default="SOL_USDC")
    asked.add_argument("--minutes", type=float, default=15)
    asked.add_argument("--out", default="chart.png")
    wish = asked.parse_args()
    trades = trades_of(wish.symbol, wish.minutes)
    if trades.empty:
        asked.exit(1, f"no trade of {wish.symbol} in the last {wish.minutes:g} minutes\n")
    gaps = read(f"trade.{wish.symbol}", timedelta(minutes=wish.minutes), of=Gap).to_pandas()
    draw(wish.symbol, trades, gaps).savefig(wish.out, dpi=120)


if __name__ == "__main__":
    main()
