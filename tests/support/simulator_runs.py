"""Runs the simulated exchange without a server, in virtual time."""

from __future__ import annotations

from simulator.engine import Engine, Plan
from simulator.events import Event
from simulator.listing import DEFAULT_SYMBOLS, listing
from simulator.signing import DEMO_KEYS

START_US = 1_790_000_000_000_000


def plan(
    seed: int,
    *,
    rate: float = 200.0,
    symbols: tuple[str, ...] = DEFAULT_SYMBOLS,
    events: int | None = None,
    start_us: int = START_US,
) -> Plan:
    """A plan with both demo accounts."""
    listings = tuple(listing(symbol) for symbol in symbols)
    return Plan(listings, seed, start_us, rate, DEMO_KEYS, events)


def run(engine: Engine, seconds: float) -> list[Event]:
    """All events of the next `seconds` of engine time, in the order of their emission."""
    until_us = engine.played_us + int(seconds * 1_000_000)
    return [event for step in engine.advance(until_us) for event in step]
