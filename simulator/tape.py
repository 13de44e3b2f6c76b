"""The tape on which one engine step writes its events, with both of the exchange's clocks.

`engine_us` is the time of the step; each event gets a later `event_us`, as if emitted by a
WebSocket server. Pure: time is an argument, the delay is drawn from the seeded generator. Knows no
event's meaning.
"""

from __future__ import annotations

import random

from simulator.events import Event

# The exchange's measured delay between engine and emission: 149 µs at least, 357 µs usually.
LEAST_DELAY_US = 149
USUAL_EXTRA_US = 250.0


class Tape:
    """The events of the current step, in the order of their emission."""

    __slots__ = ("_draw", "engine_us", "event_us", "events")

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self.engine_us = 0
        self.event_us = 0
        self.events: list[Event] = []

    def begin(self, at_us: int) -> None:
        """Start a step at an engine time; emission times never decrease."""
        self.engine_us = at_us
        delay_us = LEAST_DELAY_US + int(self._draw.expovariate(1 / USUAL_EXTRA_US))
        self.event_us = max(self.event_us, at_us + delay_us)

    def reset(self) -> None:
        """Reset the clocks: later events may have earlier times."""
        self.event_us = 0

    def stamp(self) -> int:
        """The emission time of the next event."""
        self.event_us += self._draw.randrange(3, 10)
        return self.event_us

    def write(self, event: Event) -> None:
        self.events.append(event)

    def take(self) -> list[Event]:
        """The events written since the last call."""
        events, self.events = self.events, []
        return events
