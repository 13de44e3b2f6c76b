"""`make compare` for the bridge and a loop, which need no environment of their own."""

import sys
from pathlib import Path

import pytest

from benchmarks.compare import peers, scene, speed
from benchmarks.ground import Ground, redis_server
from benchmarks.workload import make

BRIDGE, LOOP = peers.WRITERS[0], peers.WRITERS[1]


@pytest.fixture(autouse=True)
def _own_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PYTHON", Path(sys.executable))


def test_a_peer_is_measured_at_full_speed_and_singly(tmp_path: Path) -> None:
    workload = make(500, types=("trade",))
    workload.save(tmp_path / "workload")
    with redis_server(tmp_path) as (port, pid):
        ground = Ground(tmp_path, workload, tmp_path / "workload", port, [pid])
        fast = speed.saturated(LOOP, ground)
        singly = Ground(tmp_path, workload, tmp_path / "workload", port, [pid], 500.0, is_read=True)
        paced = speed.paced(LOOP, singly)

    assert fast.per_second > 0
    assert len(paced.latencies_ms) == 3


def test_entry_whose_reply_was_lost_is_recognised_by_the_bridge_only(
    tmp_path: Path,
) -> None:
    found = scene.play((BRIDGE, LOOP), scene.replies_lost, tmp_path, 200, 10)

    assert found["bridge"].sent == found[LOOP.name].sent > 100
    assert (found["bridge"].lost, found["bridge"].marked, found["bridge"].doubled) == (0, 0, 0)
    assert "not written" in (tmp_path / "loopawaitxadd/program.log").read_text()
