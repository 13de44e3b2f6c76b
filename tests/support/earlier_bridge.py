"""A bridge like an earlier version, whose contract does not name some fields yet.

Run as a program it is `python -m bridge` of that version. Its entries have the unnamed fields in
`extra`, under the exchange's one-letter keys.
"""

import runpy
import sys
from typing import Any

from pydantic import create_model

from bridge.contract import events

# -P: modules in its folder replace no others
PROGRAM = ("-P", "-m", "tests.support.earlier_bridge")
UNNAMED = {
    "Liquidation": "side",
    "BookTicker": "bid_quantity",
    "OrderUpdate": "time_in_force",
    "BalanceUpdate": "staked",
}


def without(model: type[events.Event], field: str) -> type[events.Event]:
    """The model without the field."""
    fields: dict[str, Any] = {
        name: (each.annotation, each) for name, each in model.model_fields.items() if name != field
    }
    earlier: type[events.Event] = create_model(model.__name__, __base__=events.Event, **fields)
    earlier.numbers_as_text = model.numbers_as_text
    return earlier


if __name__ == "__main__":
    assert "bridge.contract.stream_types" not in sys.modules, "its models were imported too early"
    for name, field in UNNAMED.items():
        setattr(events, name, without(getattr(events, name), field))
    runpy.run_module("bridge", run_name="__main__", alter_sys=True)
