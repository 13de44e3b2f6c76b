"""The live view: a picture laid out for a terminal of a given size, with Rich (pure).

From 80 columns up. What does not fit is told as a number, never cut off silently: streams, and
consumers where there are very many.
"""

from collections.abc import Sequence
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from bridge.watch import figures
from bridge.watch.layout import fitting
from bridge.watch.picture import BridgeRow, ConsumerRow, Picture, State, StreamRow

_STATE_STYLE = {State.UP: "green", State.STOPPED: "yellow", State.SILENT: "bold red"}
_MOST_CONSUMERS = 8
_MOST_BRIDGES = 4
_LEAST_STREAMS = 3
_WIDE = 120


def screen(
    picture: Picture, width: int, height: int, where: str, footer: Sequence[str] = ()
) -> RenderableType:
    """The whole view. `where` names the Redis; `footer` are lines for the bottom."""
    head: list[RenderableType] = [
        *_bridges(picture),
        _totals(picture, width, where),
        Rule(style="dim"),
    ]
    workers = picture.consumers[:_MOST_CONSUMERS]
    unseen = len(picture.consumers) - len(workers)
    tail: list[RenderableType] = [Rule(style="dim"), _consumers(workers, width)]
    tail += [Text(f" … and {unseen} more consumers", style="dim")] if unseen else []
    tail_lines = len(tail) + len(workers)  # the table has a line of headings; without workers, one
    # Footer lines are there to be copied: they are broken at the edge, never cut.
    lines = [part for line in footer for part in wrap(line, width - 1, break_on_hyphens=False)]
    room = height - len(head) - 1 - tail_lines - len(lines)
    shown, rest = fitting(picture.streams, max(_LEAST_STREAMS, room))
    if rest:
        shown, rest = fitting(picture.streams, max(_LEAST_STREAMS, room - 1))
    body: list[RenderableType] = [_streams(shown, width), *([_rest(rest)] if rest else [])]
    blank: list[RenderableType] = [Text()] * max(0, room - len(shown) - bool(rest))
    bottom = [Text(line, style="dim", overflow="fold") for line in lines]
    return Group(*head, *body, *tail, *blank, *bottom)


def _bridges(picture: Picture) -> list[Text]:
    if not picture.bridges:
        return [Text(" ○ no bridge has been here yet", style="bold yellow")]
    shown = _living_first(picture.bridges)[:_MOST_BRIDGES]
    troubles = [
        _trouble(f"{bridge.status.instance}: {trouble}")
        for bridge in shown
        for trouble in bridge.troubles[:2]
    ]
    return [*(_bridge(bridge, picture.now_us) for bridge in shown), *troubles]


def _living_first(bridges: Sequence[BridgeRow]) -> list[BridgeRow]:
    return sorted(bridges, key=lambda bridge: (bridge.state is not State.UP, -bridge.since_us))


def _bridge(bridge: BridgeRow, now_us: int) -> Text:
    status = bridge.status
    since = figures.age(now_us - bridge.since_us)
    word = f"up {since}" if bridge.state is State.UP else f"{bridge.state} for {since}"
    line = Text(" ", no_wrap=True, overflow="ellipsis")
    line.append("● ", style=_STATE_STYLE[bridge.state])
    line.append(f"bridge {status.instance}", style="bold")
    line.append(f"  {word}", style=_STATE_STYLE[bridge.state])
    confirmed = sum(connection.confirmed for connection in status.connections)
    wanted = sum(connection.wanted for connection in status.connections)
    if bridge.turn:
        line.append(f"   {bridge.turn}")
    line.append(f"   hears {status.exchange}", style="dim")
    line.append(f"   {confirmed} of {wanted} streams heard from", style="dim")
    return line


def _trouble(text: str) -> Text:
    return Text(f"   ! {text}", style="bold red", no_wrap=True, overflow="ellipsis")


def _totals(picture: Picture, width: int, where: str) -> Text:
    line = Text(" ", no_wrap=True, overflow="ellipsis")
    if picture.rate is not None:
        line.append(figures.rate(picture.rate), style="bold cyan")
        line.append("/s ", style="cyan")
        line.append(figures.curve(picture.curve, 24 if width >= _WIDE else 6) + "  ", style="cyan")
    line.append(f"{len(picture.streams)} streams  ")
    line.append_text(_counted(picture.gaps, "gap"))
    if picture.repaired:
        line.append(f"{picture.repaired} mended  ")
    line.append_text(_counted(picture.quarantined, "quarantined", plural=""))
    if picture.hearing_ms is not None:
        half, most = map(figures.milliseconds, picture.hearing_ms)
        line.append(f"exchange → bridge {half}")
        line.append(f" p99 {most}  ", style="dim")
    if picture.pending:
        line.append(f"{figures.count(picture.pending)} waiting  ", style="yellow")
    line.append(where, style="dim")
    return line


def _counted(number: int, noun: str, plural: str = "s") -> Text:
    style = "bold yellow" if number else "green"
    return Text(f"{figures.count(number)} {noun}{'' if number == 1 else plural}  ", style=style)


def _table(*columns: tuple[str, str, int | None], width: int) -> Table:
    """Columns as heading, `left` or `right`, and width; the one without takes what is left."""
    table = Table(box=None, width=width, padding=(0, 1), pad_edge=True, header_style="dim")
    for heading, side, size in columns:
        table.add_column(
            heading,
            justify="right" if side == "right" else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=size,
            ratio=1 if size is None else None,
        )
    return table


def _streams(streams: Sequence[StreamRow], width: int) -> Table:
    longest = max((len(stream.name) for stream in streams), default=6)
    table = _table(
        ("stream", "left", min(longest, 28 if width < _WIDE else 40)),
        ("per s", "right", 6),
        ("entries", "right", 9),
        ("age", "right", 5),
        ("newest", "left", None),
        width=width,
    )
    for stream in streams:
        style = "red" if stream.failed else "yellow" if stream.marks else "bold"
        newest = Text()
        for mark in stream.marks:
            newest.append(f"{mark}  ", style="bold red" if stream.failed else "bold yellow")
        newest.append(stream.words)
        table.add_row(
            Text(stream.name, style=style),
            Text(figures.rate(stream.rate), style="cyan"),
            figures.count(stream.entries),
            Text(figures.age(stream.age_us), style="dim"),
            newest,
        )
    return table


def _rest(rest: Sequence[StreamRow]) -> Text:
    known = [stream.rate for stream in rest if stream.rate is not None]
    rates = f", {figures.rate(sum(known)).replace('·', '0')}/s" if known else ""
    return Text(f" … and {len(rest)} more streams{rates}: a taller window shows them", style="dim")


def _consumers(workers: Sequence[ConsumerRow], width: int) -> Table | Text:
    if not workers:
        return Text(" no consumer at work: python -m consumers run candles", style="dim")
    longest = max(len(worker.name) for worker in workers)
    table = _table(
        ("consumer", "left", min(max(longest, 8), 20 if width < _WIDE else 32)),
        ("per s", "right", 6),
        ("handled", "right", 9),
        ("p50", "right", 6),
        ("p99", "right", 6),
        ("has made", "left", None),
        width=width,
    )
    for worker in workers:
        table.add_row(*_consumer(worker))
    return table


def _consumer(worker: ConsumerRow) -> tuple[Text | str, ...]:
    status = worker.status
    is_up = worker.state is State.UP
    made = Text(status.made)
    if status.failed or status.undecodable:
        made = Text(f"{status.failed + status.undecodable} failed  ", style="bold yellow") + made
    if not is_up:
        made = Text(f"silent for {figures.age(worker.age_us)}", style="bold red")
    return (
        Text(worker.name, style="bold magenta" if is_up else "red"),
        Text(figures.rate(status.rate) if is_up else "", style="cyan"),
        figures.count(status.handled),
        figures.milliseconds(status.latency_ms.p50),
        Text(figures.milliseconds(status.latency_ms.p99), style="dim"),
        made,
    )
