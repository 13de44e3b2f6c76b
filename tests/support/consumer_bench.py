"""The fixture `bench`: worker processes on the session's Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.consumer_worker import Bench
from tests.support.consumer_worker import bench as running_bench


@pytest.fixture
def bench(tmp_path: Path, redis_url: str) -> Iterator[Bench]:
    with running_bench(tmp_path, redis_url) as one:
        yield one
