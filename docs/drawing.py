"""Draws docs/pictures/flow.svg: where the messages come from, what they become, who reads them.

Pure; `docs.generate` writes the file. Plain SVG with its own background, so that it reads the same
on a light and on a dark page.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 980, 320
INK, MUTED, LINE, PAPER = "#1c2733", "#5b6b7b", "#c9d3dc", "#ffffff"
EXCHANGE, BRIDGE, REDIS, READERS, GAP = "#eef2f6", "#e3f1ea", "#fdeceb", "#eaeefc", "#fff3d6"
SANS = "font-family='system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif'"
MONO = "font-family='ui-monospace,SFMono-Regular,Menlo,Consolas,monospace'"

# As `tap` shows them: a key, and its newest entries.
STREAMS = (
    ("trade.SOL_USDC", "buy 3.99 @ 99.16"),
    ("trade.SOL_USDC", "gap: 3 trades are missing, 41 to 43"),
    ("depth.BTC_USDC", "1 bid, 2 asks"),
    ("account.orderUpdate", "filled 0.5 @ 86 642.9"),
)


@dataclass(frozen=True, slots=True)
class Box:
    """A box with a title and lines below it."""

    x: int
    y: int
    width: int
    height: int
    fill: str
    title: str
    lines: tuple[str, ...] = ()


_BRIDGE = ("validates each message", "fetches what was missed", "marks what is missing")
BOXES = (
    Box(12, 100, 164, 90, EXCHANGE, "Backpack Exchange", ("WebSocket, REST,", "or the simulator")),
    Box(226, 60, 190, 170, BRIDGE, "bridge", _BRIDGE),
    Box(476, 40, 300, 230, REDIS, "Redis Streams"),
    Box(830, 40, 138, 50, READERS, "your consumers", ("in Python",)),
    Box(830, 130, 138, 50, READERS, "other languages", ("a Redis client",)),
    Box(830, 220, 138, 50, READERS, "research", ("pandas, DuckDB",)),
)
# From x to x, at a height.
ARROWS = ((176, 226, 145), (416, 476, 145), (776, 830, 65), (776, 830, 155), (776, 830, 245))

NOTES = (
    (321, 262, "Redis unavailable, bridge killed, a second bridge:"),
    (321, 278, "each message is there once, or a gap says so"),
    (626, 300, "key = the exchange's stream name; ID = its own numbers"),
)


def flow_svg() -> str:
    """The picture."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' "
        "aria-label='Backpack Exchange, the bridge with its journal, Redis Streams, readers'>"
    )
    yield f"<rect width='{WIDTH}' height='{HEIGHT}' rx='10' fill='{PAPER}'/>"
    yield (
        f"<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' "
        f"markerHeight='7' orient='auto'><path d='M0 0 8 4 0 8z' fill='{MUTED}'/></marker></defs>"
    )
    for x1, x2, y in ARROWS:
        yield (
            f"<line x1='{x1}' y1='{y}' x2='{x2 - 3}' y2='{y}' stroke='{MUTED}' "
            "stroke-width='1.6' marker-end='url(#tip)'/>"
        )
    for box in BOXES:
        yield from _box(box)
    yield from _entries(BOXES[2])
    yield from _box(Box(256, 185, 130, 30, PAPER, "", ("journal on disk",)), first_y=20)
    for x, y, words in NOTES:
        yield _text(x, y, words, MUTED, 11, anchor="middle")
    yield "</svg>"


def _box(box: Box, first_y: int = 44) -> Iterator[str]:
    yield (
        f"<rect x='{box.x}' y='{box.y}' width='{box.width}' height='{box.height}' rx='8' "
        f"fill='{box.fill}' stroke='{LINE}'/>"
    )
    middle = box.x + box.width // 2
    size = 14 if box.height > 60 else 12
    if box.title:
        yield _text(middle, box.y + 24, box.title, INK, size, anchor="middle", weight=600)
    for number, line in enumerate(box.lines):
        at = box.y + first_y + number * 17 - (4 if box.height < 60 and box.title else 0)
        yield _text(middle, at, line, MUTED, 11.5, anchor="middle")


def _entries(box: Box) -> Iterator[str]:
    for number, (key, words) in enumerate(STREAMS):
        y = box.y + 40 + number * 46
        fill = GAP if words.startswith("gap") else PAPER
        yield (
            f"<rect x='{box.x + 14}' y='{y}' width='{box.width - 28}' height='38' rx='5' "
            f"fill='{fill}' stroke='{LINE}'/>"
        )
        yield _text(box.x + 24, y + 15, key, INK, 11, weight=600, mono=True)
        yield _text(box.x + 24, y + 30, words, MUTED, 11, mono=True)


def _text(
    x: int,
    y: int,
    words: str,
    fill: str,
    size: float,
    *,
    anchor: str = "start",
    weight: int = 400,
    mono: bool = False,
) -> str:
    family = MONO if mono else SANS
    return (
        f"<text x='{x}' y='{y}' {family} font-size='{size}' font-weight='{weight}' "
        f"text-anchor='{anchor}' fill='{fill}'>{escape(words)}</text>"
    )
