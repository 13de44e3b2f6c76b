"""Compares Redis with the simulator's ledger after a run: no loss without a gap, no
duplicate, right order.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from bridge.core.records import Frame
from bridge.journal.inspection import records
from tests.support import truth
from tests.support.bridge_run import entries
from tests.support.redis_server import RedisServer
from tests.support.simulator_process import RunningSimulator

SEQUENCED = ("trade.", "depth.")
AT = "at_us"  # added to a frame's data: the time of sending, by the wall clock


def verdict(server: RedisServer, exchange: RunningSimulator, begun_us: int) -> list[str]:
    """The faults in Redis, one sentence each, at most three per stream.

    Events of streams without numbers before `begun_us`, the start of the first bridge, are ignored.
    """
    assert exchange.ledger is not None
    made: dict[str, list[dict[str, Any]]] = {}
    for line in truth.read_ledger(exchange.ledger):
        stream, data = line["frame"]["stream"], line["frame"]["data"]
        if not stream.startswith(SEQUENCED) and data.get("E", 0) < begun_us:
            continue
        made.setdefault(stream, []).append(data | {AT: line["at_us"]})
    found: list[str] = []
    with server.client(decode_responses=True) as client:
        for stream in _streams(client):
            stored = entries(client, stream)
            judge = _sequenced_faults if stream.startswith(SEQUENCED) else _by_content_faults
            frames = made.get(stream, [])
            found += [f"{stream}: {fault}" for fault in judge(stream, frames, stored)][:3]
    return found


def gaps(server: RedisServer) -> list[str]:
    """Every gap in Redis except those at the streams' starts, as text."""
    with server.client(decode_responses=True) as client:
        return [
            f"{stream} {entry_id}: {fields}"
            for stream in _streams(client)
            for entry_id, fields in entries(client, stream)
            if fields["type"] == "gap" and fields["cause"] != "start"
        ]


def not_published(server: RedisServer, journal: Path) -> list[str]:
    """The trades and book changes that the journal has and Redis lacks, as one text per stream.

    A gap may cover messages that were not received, but no received message.
    """
    received: dict[str, set[int]] = {}
    for record in records(journal):
        if isinstance(record, Frame):
            frame = json.loads(record.body)
            stream = frame.get("stream", "")
            if stream.startswith(SEQUENCED):
                letter = "t" if stream.startswith("trade.") else "u"
                received.setdefault(stream, set()).add(frame["data"][letter])
    assert received, f"there are no frames in {journal}"
    missing = {}
    with server.client(decode_responses=True) as client:
        for stream, numbers in sorted(received.items()):
            name = "trade_id" if stream.startswith("trade.") else "last_update_id"
            stored = {int(fields.get(name) or 0) for _, fields in entries(client, stream)}
            missing[stream] = sorted(numbers - stored)
    return [
        f"{stream}: {len(numbers)} in the journal alone, from {numbers[0]} to {numbers[-1]}"
        for stream, numbers in missing.items()
        if numbers
    ]


def _streams(client: redis.Redis) -> list[str]:
    names: Any = client.hkeys("bridge:streams")
    return sorted(name for name in names if client.exists(name))


def _sequenced_faults(
    stream: str, made: Sequence[Mapping[str, Any]], stored: Sequence[truth.Entry]
) -> Iterator[str]:
    letter = "t" if stream.startswith("trade.") else "u"
    by_number = {data[letter]: data for data in made}
    position = None
    for entry_id, fields in stored:
        if fields["type"] == "depth_snapshot":
            continue
        if fields["type"] == "gap":
            if fields["from"] and int(fields["from"]) != (position or 0) + 1:
                yield f"gap {entry_id} begins at {fields['from']}, position is {position}"
            position = int(fields["to"]) if fields["to"] else position
            continue
        first = int(fields.get("first_update_id") or fields["trade_id"])
        number = int(fields.get("last_update_id") or fields["trade_id"])
        if position is not None and first != position + 1:
            yield f"{entry_id} is {first}, after {position}"
        position = number
        if fields.get("source") == "rest":
            continue  # history has fewer fields
        data = {letter: value for letter, value in by_number[number].items() if letter != AT}
        if fault := truth.fault(stream, data, fields):
            yield fault


def _by_content_faults(
    stream: str, made: Sequence[Mapping[str, Any]], stored: Sequence[truth.Entry]
) -> Iterator[str]:
    """Every event is stored once, or lies within the interval of a gap.

    An interval begins and ends in the exchange's time, or in the bridge's if the exchange was
    silent. The two agree unless the simulator lacks processor time and stamps messages late. So a
    message lies within a gap by its stamp or by its time of sending.
    """
    there: dict[int, int] = {}
    fetched = set()  # fills from the exchange's history have no time of sending
    outages = []
    for _, fields in stored:
        if fields["type"] == "gap":
            outages.append((int(fields["from_us"] or 0), int(fields["to_us"])))
        elif fields.get("source") == "rest":
            fetched.add((int(fields["trade_id"]), fields["order_id"]))
        elif fields["type"] not in truth.OWN_TYPES:
            event_us = int(fields["event_us"])
            there[event_us] = there.get(event_us, 0) + 1
    for data in made:
        event_us = data["E"]
        if "e" not in data:
            continue  # without `e`: the current position, sent at a subscription
        if there.get(event_us, 0) > 1:
            yield f"{event_us} is there {there[event_us]} times: {data}"
        missing = event_us not in there and (data.get("t"), data.get("i")) not in fetched
        moments = (event_us, data[AT])
        if missing and not any(
            from_us <= moment_us <= to_us for from_us, to_us in outages for moment_us in moments
        ):
            near = min(outages, key=lambda each: abs(each[0] - event_us), default=None)
            yield f"{event_us} is missing, and no gap says so (nearest {near}): {data}"
