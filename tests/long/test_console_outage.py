"""The console shows an outage of Redis at once, and its end."""

from pathlib import Path

from tests.integration.view.test_console import running_console
from tests.support.eventually import eventually
from tests.support.redis_server import running_redis


def test_redis_unavailable_is_reported_at_once_and_its_return_too(tmp_path: Path) -> None:
    with (
        running_redis() as server,
        running_console(tmp_path, server.url) as console,
        console.events(page="now") as events,
    ):
        heads = (value for name, value in events if name == "head")
        eventually(lambda: "No bridge" in next(heads)["text"], "Redis is read")
        server.kill()
        eventually(lambda: "does not answer" in next(heads)["text"], "Redis is unavailable")
        server.start()
        eventually(lambda: "No bridge" in next(heads)["text"], "Redis is available again")
