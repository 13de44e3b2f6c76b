"""Plays the engine's virtual schedule against the real clock, with the faults at their times
between the events.

Behind schedule it catches up without skipping, in short slices so that sockets stay served. Knows
neither the content of events nor their receivers.
"""

from __future__ import annotations

import asyncio
import time

from simulator.engine import Engine
from simulator.faults.director import Director
from simulator.hub import Hub

# Events within this time are emitted together; it is also the limit of one slice of catching up.
LONGEST_PAUSE_S = 0.005
LONGEST_SLICE_S = 0.005


async def play(engine: Engine | None, hub: Hub, director: Director, begun_s: float) -> None:
    """Emit every event at its time, and begin and end every fault at its time, until cancelled.

    `begun_s` is the monotonic time of the engine's start. Without an engine only the faults are
    played.
    """
    start_us = director.now_us
    while True:
        due_us = start_us + int((time.monotonic() - begun_s) * 1e6)
        behind = _catch_up(engine, hub, director, due_us)
        await asyncio.sleep(0 if behind else LONGEST_PAUSE_S)


def _catch_up(engine: Engine | None, hub: Hub, director: Director, due_us: int) -> bool:
    """Do what is due, for a slice of time. Returns whether more is due."""
    slice_ends_s = time.monotonic() + LONGEST_SLICE_S
    while time.monotonic() < slice_ends_s:
        if not play_next(engine, hub, director, due_us):
            return False
    return True


def play_next(engine: Engine | None, hub: Hub, director: Director, due_us: int) -> bool:
    """Do the next due action, a fault before an event of the same moment. Returns whether there was
    one. Reads no clock.
    """
    step_us = engine.next_us if engine is not None else None
    fault_us = director.next_us
    if fault_us is not None and fault_us <= due_us and (step_us is None or fault_us <= step_us):
        director.until(fault_us)
        return True
    if engine is None or step_us is None or step_us > due_us:
        director.until(due_us)
        return False
    director.until(step_us)
    for step in engine.advance(step_us):
        for event in step:
            hub.put(event)
    director.end_spent()
    return True
