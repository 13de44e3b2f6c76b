"""Plays the engine's virtual schedule out against the real clock.

Behind schedule it catches up without skipping, in short slices so that sockets stay served. Refuses
to know what is played and who hears it.
"""

from __future__ import annotations

import asyncio
import time

from simulator.engine import Engine
from simulator.hub import Hub

# Events that lie this close together are put out in one go; a slice of catching up takes no longer
# either.
LONGEST_PAUSE_S = 0.005
LONGEST_SLICE_S = 0.005


async def play(engine: Engine, hub: Hub, begun_s: float) -> None:
    """Put out every event at its time until nothing is left to happen.

    `begun_s` is the monotonic time at which the engine's start lies.
    """
    next_us = engine.next_us
    while next_us is not None:
        due_us = engine.plan.start_us + int((time.monotonic() - begun_s) * 1e6)
        slice_ends_s = time.monotonic() + LONGEST_SLICE_S
        for step in engine.advance(due_us):
            for event in step:
                hub.put(event)
            if time.monotonic() > slice_ends_s:
                break
        next_us = engine.next_us
        behind = next_us is not None and next_us <= due_us
        await asyncio.sleep(0 if behind else LONGEST_PAUSE_S)
