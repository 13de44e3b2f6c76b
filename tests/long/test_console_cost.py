"""The processor time of the console while a client is connected."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.integration.view.conftest import Bus
from tests.integration.view.test_console import STREAM, running_console, write_depth
from tests.support.redis_server import running_redis

UPDATES = 300
PER_S = 60


def processor_s(pid: int) -> float:
    """The processor time of the process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sixty_updates_a_second_take_less_than_a_tenth_of_a_core(tmp_path: Path) -> None:
    with running_redis() as server, server.client() as client:
        bus = Bus(client)
        bus.register(STREAM, "depth.SOL_USDC", *(f"ticker.M{i}_USDC" for i in range(40)))
        bus.trade(STREAM, "1700000000000-10")
        write_depth(bus)
        bus.bridge()
        with running_console(tmp_path, server.url) as site, site.events(page="market") as events:
            assert any(name == "whole" and not value["is_loading"] for name, value in events)
            seen: set[str] = set()

            def read() -> None:
                for _, value in events:
                    seen.update(one["price"] for one in value.get("trades", ()))
                    if str(UPDATES) in seen:
                        return

            reader = threading.Thread(target=read)
            reader.start()
            begun_s, before_s = time.monotonic(), processor_s(site.process.pid)
            for number in range(1, UPDATES + 1):
                bus.trade(STREAM, f"{1_700_000_000_000 + number}-10", price=str(number))
                # keeps the rate of PER_S updates a second
                time.sleep(max(0.0, begun_s + number / PER_S - time.monotonic()))
            reader.join(60)
            used_s, took_s = processor_s(site.process.pid) - before_s, time.monotonic() - begun_s
    assert len(seen) == UPDATES
    assert used_s / took_s < 0.1
