"""Draws the last minutes of a market: price, volume, and gaps.

    python examples/chart.py SOL_USDC --minutes 15 --out chart.png

Needs the extras `pandas` and `chart`. The lines between the `# %%` marks are also cells of a
notebook: some editors run one cell at a time.
"""

# %% What to draw
import argparse
from datetime import timedelta
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # renders to a file; leave this out in a notebook
from matplotlib import pyplot as plt

from backpack_bridge import Gap, Trade, read

BARS = 90  # number of volume bars over the whole width


# %% Read a range of the stream into a frame: one line
def trades_of(symbol: str, minutes: float) -> Any:
    """The trades as a frame, with decimals as floats, which are exact enough for a chart."""
    return read(f"trade.{symbol}", timedelta(minutes=minutes), of=Trade).to_pandas("float")


# %% Draw it
def draw(symbol: str, trades: Any, gaps: Any) -> Any:
    """A figure with price above and volume below; a line across both marks a gap."""
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
    """Draw the market given on the command line to a file."""
    parser = argparse.ArgumentParser(description="Draw the last minutes of a market's trades.")
    parser.add_argument("symbol", nargs="?", default="SOL_USDC")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--out", default="chart.png")
    args = parser.parse_args()
    trades = trades_of(args.symbol, args.minutes)
    if trades.empty:
        parser.exit(1, f"no trade of {args.symbol} in the last {args.minutes:g} minutes\n")
    gaps = read(f"trade.{args.symbol}", timedelta(minutes=args.minutes), of=Gap).to_pandas()
    draw(args.symbol, trades, gaps).savefig(args.out, dpi=120)


if __name__ == "__main__":
    main()
