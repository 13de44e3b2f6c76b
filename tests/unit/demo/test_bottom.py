"""The lines below the demo's live view, and the faults that its keys begin."""

from pathlib import Path

from demo.breaking import KEYS, LEVERS
from demo.show import bottom, watch_lines


def test_below_the_view_are_the_state_the_keys_the_consoles_address_and_the_logs() -> None:
    ways = watch_lines("http://127.0.0.1:8088/#token=x", ["export A=b", "python -m bridge tap x"])
    assert bottom("nothing is broken · 0 lost", ways, Path("/here")) == (
        " nothing is broken · 0 lost",
        " break: d drops frames, b kills the bridge, r freezes Redis, c stops a consumer"
        " · q stops all",
        " in a browser: http://127.0.0.1:8088/#token=x",
        " export A=b",
        " python -m bridge tap x",
        " logs in /here",
    )


def test_each_key_breaks_what_the_line_states_and_every_lever_has_one() -> None:
    labels = {one.name: one.label for one in LEVERS}
    assert {key: labels[name] for key, name in KEYS.items()} == {
        "d": "Drop frames", "b": "Kill the bridge", "r": "Freeze Redis", "c": "Stop a consumer",
    }  # fmt: skip
    assert len(KEYS) == len(LEVERS)
