"""The results of a run as tables and a picture. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.compare.scene import Arrived
from benchmarks.measure import Sample

WIDTH, LEFT, BAR, ROW = 860, 320, 380, 26
INK, MUTED, OURS, OTHERS, PAPER = "#1c2733", "#5b6b7b", "#2f9e68", "#8fa3b5", "#ffffff"
FONT = "font-family='system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif'"

Cells = tuple[tuple[float | None, str], ...]


@dataclass(frozen=True, slots=True)
class Line:
    """The results of one peer. A string in place of a figure is the reason; `arrived` by fault."""

    title: str
    note: str
    is_ours: bool
    fast: Sample | str
    paced: Sample | str
    arrived: Mapping[str, Arrived | str]


def speed_table(lines: Sequence[Line], rate: float) -> Iterator[str]:
    """The table of rates, costs and latencies."""
    yield (
        f"| | messages/s | CPU µs/message | Redis CPU µs/message | memory, MB | CPU µs/message at "
        f"{rate:g}/s | p50 ms | p99 ms |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    rows = [(*_fast(line.fast), *_paced(line.paced)) for line in lines]
    yield from _rows(lines, rows)


def read_table(lines: Sequence[Line]) -> Iterator[str]:
    """The table of the readers' rates and costs."""
    yield "| | messages/s | CPU µs/message | Redis CPU µs/message | memory, MB |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    yield from _rows(lines, [_fast(line.fast) for line in lines])


def fault_table(lines: Sequence[Line], faults: Sequence[str]) -> Iterator[str]:
    """The table of what arrived, by fault."""
    yield f"| | {' | '.join(faults)} |"
    yield f"| --- |{' ---: |' * len(faults)}"
    for line in lines:
        cells = (_arrived(line.arrived.get(fault, "–")) for fault in faults)
        yield f"| {line.title} | {' | '.join(cells)} |"


def picture(lines: Sequence[Line], heading: str) -> str:
    """CPU a message and lost trades as bars; lower is better in both."""
    samples = [line for line in lines if isinstance(line.fast, Sample)]
    costs = [(line, line.fast.cpu_us) for line in samples if isinstance(line.fast, Sample)]
    lost = [(line, float(_lost(line))) for line in lines if line.arrived]
    body: list[str] = []
    y = 58
    for name, bars, unit in (
        ("CPU a message, as fast as it goes (less is better)", costs, "µs"),
        ("Trades neither there nor marked, all faults together (less is better)", lost, ""),
    ):
        body.append(f"<text x='20' y='{y}' font-weight='600'>{name}</text>")
        most = max((value for _, value in bars), default=0) or 1
        for line, value in bars:
            y += ROW
            fill = OURS if line.is_ours else OTHERS
            body.append(f"<text x='20' y='{y}'>{_plain(line.title)}</text>")
            width = max(1, value / most * BAR)
            body.append(
                f"<rect x='{LEFT}' y='{y - 12}' width='{width:.0f}' height='15' fill='{fill}'/>"
            )
            body.append(f"<text x='{LEFT + width + 8:.0f}' y='{y}'>{value:,.0f} {unit}</text>")
        y += 2 * ROW
    top = f"<text x='20' y='26' fill='{MUTED}'>{escape(heading)}</text>"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {y}' {FONT} font-size='13' "
        f"fill='{INK}'>\n<rect width='{WIDTH}' height='{y}' fill='{PAPER}'/>\n"
        + "\n".join([top, *body])
        + "\n</svg>\n"
    )


def _plain(title: str) -> str:
    return escape(title.replace("`", ""))


def _lost(line: Line) -> int:
    return sum(each.lost for each in line.arrived.values() if isinstance(each, Arrived))


def _rows(lines: Sequence[Line], rows: Sequence[Cells]) -> Iterator[str]:
    """Rows with the best of each column in bold: the first's highest, all others' lowest value."""
    best: list[float | None] = []
    for number, column in enumerate(zip(*rows, strict=True)):
        values = [value for value, _ in column if value is not None]
        best.append((min if number else max)(values, default=None))
    for line, row in zip(lines, rows, strict=True):
        cells = (
            f"**{text}**" if value is not None and value == most else text
            for (value, text), most in zip(row, best, strict=True)
        )
        yield f"| {line.title} | {' | '.join(cells)} |"


def _fast(sample: Sample | str) -> Cells:
    if isinstance(sample, str):
        return (None, sample), (None, ""), (None, ""), (None, "")
    whole = (sample.per_second, sample.cpu_us, sample.redis_us, sample.rss_mb or 0.0)
    return tuple((round(value), f"{value:,.0f}") for value in whole)


def _paced(sample: Sample | str) -> Cells:
    if isinstance(sample, str):
        return (None, sample), (None, ""), (None, "")
    delays = ((round(value, 1), f"{value:.1f}") for value in sample.latencies_ms[:2])
    return (round(sample.cpu_us), f"{sample.cpu_us:.0f}"), *delays


def _arrived(arrived: Arrived | str) -> str:
    if isinstance(arrived, str):
        return arrived
    if arrived.lost:
        parts = [f"{arrived.lost:,} of {arrived.sent:,} lost"]
        parts += [f"{arrived.marked:,} marked"] if arrived.marked else []
    else:
        parts = [f"all but {arrived.marked:,} marked" if arrived.marked else "all"]
    if arrived.doubled:
        parts.append(f"{arrived.doubled:,} twice")
    return ", ".join(parts)
