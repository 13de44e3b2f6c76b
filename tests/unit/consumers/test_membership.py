"""Two live workers with one name detect each other; a dead worker is not reported."""

import json

from consumers.kit.membership import NameGuard

ABSURD = '{"host": "h", "pid": 1e999, "started_us": 1, "updated_us": 2}'


def status(pid: int, updated_us: int, started_us: int = 1) -> str:
    reported = {"host": "h", "pid": pid, "started_us": started_us, "updated_us": updated_us}
    return json.dumps(reported)


def test_a_status_that_is_written_again_is_that_of_another_process_reported_once() -> None:
    guard = NameGuard()
    assert guard.detect(status(7, 10), status(1, 11)) is None
    assert guard.detect(status(1, 11), status(1, 12)) is None  # our status is still there
    assert guard.detect(status(7, 13), status(1, 14)) == "process 7 on h"
    assert guard.detect(status(7, 15), status(1, 16)) is None
    assert guard.detect(status(8, 15), status(1, 17)) is None
    assert guard.detect(status(8, 18), status(1, 19)) == "process 8 on h"


def test_a_status_of_a_killed_worker_a_backup_or_another_program_is_no_live_process() -> None:
    guard = NameGuard()
    for before in (
        None,
        status(7, 10),
        status(1, 2),
        status(7, 10),
        status(7, 9),
        "{",
        "[1]",
        ABSURD,
    ):
        assert guard.detect(before, status(1, 11)) is None
    assert guard.detect(status(1, 10), status(1, 12)) is None  # our own earlier status
