"""The live view for a terminal of a given size, with Rich (pure).

For 80 columns and more. Streams and consumers that do not fit are given as a number, never left out
silently.
"""

import re
from collections.abc import Collection, Sequence
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from bridge.view import figures, fleet
from bridge.view.browse import Browse, ordered, window
from bridge.view.layout import fitting
from bridge.view.view_model import BridgeRow, ConsumerRow, State, StreamRow, ViewModel

_STATE_STYLE = {State.UP: "green", State.STOPPED: "yellow", State.SILENT: "bold red"}
_SIDES = re.compile(r"\b(buy|sell|bid|ask)\b")
_MOST_CONSUMERS = 8
_MOST_BRIDGES = 4
_LEAST_STREAMS = 3
_WIDE = 120


def screen(
    view_model: ViewModel,
    width: int,
    height: int,
    where: str,
    footer: Sequence[str] = (),
    browse: Browse | None = None,
    before: ViewModel | None = None,
) -> RenderableType:
    """The whole view. `where` names the Redis; `footer` are lines for the bottom. With `browse`,
    the list covers all streams and shows a part of it; `before` is the previous view model, to
    highlight changes.
    """
    head: list[RenderableType] = [
        *(fitted(line, width) for line in _bridges(view_model)),
        _totals(view_model, width, where),
        Rule(style="dim"),
    ]
    workers = view_model.consumers[:_MOST_CONSUMERS]
    unseen = len(view_model.consumers) - len(workers)
    known = _consumers(workers, width)
    unknown = Text(" consumers are not known without shard 0", style="dim")
    tail: list[RenderableType] = [
        Rule(style="dim"),
        unknown if 0 in view_model.unavailable else known,
    ]
    tail += [Text(f" … and {unseen} more consumers", style="dim")] if unseen else []
    tail_lines = len(tail) + len(workers)  # the table has a line of headings; without workers, one
    # Footer lines are there to be copied: they are wrapped at the edge, never cut.
    lines = [part for line in footer for part in wrap(line, width - 1, break_on_hyphens=False)]
    room = height - len(head) - 1 - tail_lines - len(lines)
    body, used = _list(view_model, max(_LEAST_STREAMS, room), width, browse, before)
    blank: list[RenderableType] = [Text()] * max(0, room - used)
    bottom = [Text(line, style="dim", overflow="fold") for line in lines]
    return Group(*head, *body, *tail, *blank, *bottom)


def _list(
    view_model: ViewModel, room: int, width: int, browse: Browse | None, before: ViewModel | None
) -> tuple[list[RenderableType], int]:
    """The streams, and how many lines they take without the headings."""
    old = {stream.name: stream.text for stream in before.streams} if before is not None else {}
    changed = {
        each.name for each in view_model.streams if old.get(each.name, each.text) != each.text
    }
    if browse is None:
        shown, rest = fitting(view_model.streams, room)
        if rest:
            shown, rest = fitting(view_model.streams, max(_LEAST_STREAMS, room - 1))
        more = [_rest(rest)] if rest else []
        return [_streams(shown, width, changed), *more], len(shown) + len(more)
    streams = ordered(view_model.streams, browse)
    is_long = len(streams) > room
    place = min(browse.place, max(0, len(streams) - 1))
    lines = window(place, len(streams), room - is_long)
    marked = streams[place].name if streams else ""
    shown = [streams[at] for at in lines]
    where = f" {lines.start + 1} to {lines.stop} of {len(streams)} streams"
    more = [Text(where, style="dim")] if is_long else []
    if not streams:
        more = [Text(f" no stream has {browse.search!r} in its name", style="yellow")]
    return [_streams(shown, width, changed, marked), *more], len(shown) + len(more)


def clipped(text: str, width: int) -> str:
    """As much of a line as fits, cut between words, with `…` where text is left out: so a number is
    shown whole or not at all.
    """
    if cell_len(text) <= width:
        return text
    ends = [at for at, char in enumerate(text) if char == " " and text[:at].strip()]
    fits = [at for at in ends if cell_len(text[:at]) + 2 <= width]
    return f"{text[: fits[-1]].rstrip()} …" if fits else "…"


def fitted(text: Text, width: int) -> Text:
    """As `clipped`, for a text with styles."""
    kept = clipped(text.plain, width)
    if kept == text.plain:
        return text
    return text[: len(kept) - 1] + Text("…")


def side_style(kind: str | None, text: str) -> str:
    """Green for bought, red for sold, yellow for missing or refused."""
    if kind in ("gap", "quarantined") or text.startswith("GAP"):
        return "bold yellow"
    found = _SIDES.search(text)
    return "" if found is None else "green" if found[0] in ("buy", "bid") else "red"


def _bridges(view_model: ViewModel) -> list[Text]:
    full = [_trouble(view_model.redis_full)] if view_model.redis_full else []
    full += [_trouble(why) for why in view_model.unavailable.values()]
    if not view_model.bridges and 0 in view_model.unavailable:
        return full
    if not view_model.bridges:
        return [*full, Text(" ○ no bridge has run here yet", style="bold yellow")]
    shown = _living_first(view_model.bridges)[:_MOST_BRIDGES]
    troubles = [
        _trouble(f"{bridge.status.instance}: {trouble}")
        for bridge in shown
        for trouble in bridge.troubles[:2]
    ]
    troubles += [_trouble(reason) for reason in fleet.reasons(view_model.living)]
    return [*full, *(_bridge(bridge, view_model.now_us) for bridge in shown), *troubles]


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
    requested = sum(connection.wanted for connection in status.connections)
    if bridge.turn:
        line.append(f"   {bridge.turn}")
    line.append(f"   from {status.exchange}", style="dim")
    line.append(f"   {confirmed} of {requested} streams received", style="dim")
    return line


def _trouble(text: str) -> Text:
    return Text(f"   ! {text}", style="bold red", no_wrap=True, overflow="ellipsis")


def _totals(view_model: ViewModel, width: int, where: str) -> Text:
    line = Text(" ", no_wrap=True, overflow="ellipsis")
    if view_model.rate is not None:
        line.append(figures.rate(view_model.rate), style="bold cyan")
        line.append("/s ", style="cyan")
        line.append(
            figures.curve(view_model.curve, 24 if width >= _WIDE else 6) + "  ", style="cyan"
        )
    line.append(f"{len(view_model.streams)} streams  ")
    line.append_text(_counted(view_model.gaps, "gap"))
    if view_model.recovered:
        line.append(f"{view_model.recovered} recovered  ")
    line.append_text(_counted(view_model.quarantined, "quarantined", plural=""))
    if view_model.receive_ms is not None:
        half, most = map(figures.milliseconds, view_model.receive_ms)
        # Non-breaking spaces: a name must not be cut from its number.
        line.append(f"exchange → bridge\u00a0{half}")
        line.append(f" p99\u00a0{most}  ", style="dim")
    if view_model.unreadable:
        line.append(f"{view_model.unreadable} unreadable  ", style="bold yellow")
    if view_model.pending:
        line.append(f"{figures.count(view_model.pending)} waiting  ", style="yellow")
    line.append(where, style="dim")
    return fitted(line, width)


def _counted(number: int, noun: str, plural: str = "s") -> Text:
    style = "bold yellow" if number else "green"
    return Text(f"{figures.count(number)} {noun}{'' if number == 1 else plural}  ", style=style)


def _table(*columns: tuple[str, str, int | None], width: int) -> Table:
    """Columns as heading, `left` or `right`, and width; None takes the remaining width."""
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


def _streams(
    streams: Sequence[StreamRow], width: int, changed: Collection[str] = (), marked: str = ""
) -> Table:
    longest = max((len(stream.name) for stream in streams), default=6)
    rates = [figures.rate(stream.rate) for stream in streams]
    counts = [stream.entries_text for stream in streams]
    sizes = (
        min(longest, 28 if width < _WIDE else 40),
        max(6, *map(len, rates)) if rates else 6,
        max(9, *map(len, counts)) if counts else 9,
        max((5, *(len(stream.age_text) for stream in streams))),
    )
    table = _table(
        ("stream", "left", sizes[0]),
        ("per s", "right", sizes[1]),
        ("entries", "right", sizes[2]),
        ("age", "right", sizes[3]),
        ("newest", "left", None),
        width=width,
    )
    room = width - sum(sizes) - 2 * 5
    for stream in streams:
        style = "red" if stream.is_failing else "yellow" if stream.marks else "bold"
        newest = Text()
        for mark in stream.marks:
            newest.append(f"{mark}  ", style="bold red" if stream.is_failing else "bold yellow")
        text = Text(stream.text, style=side_style(None, stream.text))
        text.stylize("bold" if stream.name in changed else "dim" if changed else "")
        newest = fitted(newest + text, room)
        table.add_row(
            Text(stream.name, style=style),
            Text(figures.rate(stream.rate), style="cyan"),
            stream.entries_text,
            Text(stream.age_text, style="dim"),
            newest,
            style="reverse" if stream.name == marked else "",
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
    least = (6, 9, 6, 6)
    lengths = [[len(str(cell)) for cell in _consumer(worker)[1:5]] for worker in workers]
    sizes = [
        min(max(longest, 8), 20 if width < _WIDE else 32),
        *(max(low, *some) for low, *some in zip(least, *lengths, strict=True)),
    ]
    table = _table(
        ("consumer", "left", sizes[0]),
        ("per s", "right", sizes[1]),
        ("handled", "right", sizes[2]),
        ("p50", "right", sizes[3]),
        ("p99", "right", sizes[4]),
        ("has made", "left", None),
        width=width,
    )
    room = width - sum(sizes) - 2 * 6
    for worker in workers:
        *numbers, made = _consumer(worker)
        table.add_row(*numbers, fitted(made, room))
    return table


def _consumer(worker: ConsumerRow) -> tuple[Text, Text, Text, Text, Text, Text]:
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
        Text(figures.count(status.handled)),
        Text(figures.milliseconds(status.latency_ms.p50)),
        Text(figures.milliseconds(status.latency_ms.p99), style="dim"),
        made,
    )
