"""Alerts over a real socket to a webhook that fails, hangs or drops; no error shows a secret."""

import os
from collections.abc import Iterator

import pytest

from consumers.handlers.alerts import Alerts, NotDelivered
from consumers.testing import EventFactory, Trial
from tests.support.consumer_entries import START_US, entry_id, gap, trade
from tests.support.consumer_worker import Bench
from tests.support.eventually import eventually
from tests.support.redis_server import free_port
from tests.support.webhook import WebhookServer, running_webhook

TRADES = "trade.SOL_USDC"
pytestmark = pytest.mark.timeout(120)  # several processes start, on a machine that may be busy

SECRET, TOKEN = "T0P-S3CRET", "B34R3R"


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    with running_webhook() as (server, url):
        monkeypatch.setenv("ALERTS_WEBHOOK_URL", f"{url}/services/{SECRET}")
        monkeypatch.setenv("ALERTS_WEBHOOK_TOKEN", TOKEN)
        yield server


HANGS = ("hang", "drip")


def move(limit_s: str = "5") -> None:
    """Deliver two trades, which make one alert due.

    `limit_s` is short only where the test reaches it: a reply takes longer on a busy machine.
    """
    factory = EventFactory()
    Trial(Alerts, TRADES, timeout_s=limit_s).deliver(factory.trade("100"), factory.trade("102"))


def test_an_alert_is_posted_as_json_with_its_key(webhook: WebhookServer) -> None:
    move()
    [received] = webhook.received
    assert received.path == f"/services/{SECRET}"
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["Authorization"] == f"Bearer {TOKEN}"
    assert received.headers["Idempotency-Key"] == "trade.SOL_USDC/1788367440500-20"
    assert received.body["text"] == "SOL_USDC +2.00 % within 60 s: 100 → 102"


def test_webhook_with_an_endless_reply_counts_as_delivered(webhook: WebhookServer) -> None:
    """The worker reads only the status: an endless body would fill the memory before the
    timeout.
    """
    webhook.then.append("endless")
    move()
    assert len(webhook.received) == 1


@pytest.mark.parametrize("trouble", [500, 429, 307, "drop", "hang", "drip"])
def test_webhook_failure_is_tried_again_with_the_same_key(
    webhook: WebhookServer, trouble: int | str
) -> None:
    webhook.then.append(trouble)
    move("1.5" if trouble in HANGS else "5")
    keys = {one.headers["Idempotency-Key"] for one in webhook.received}
    assert (len(webhook.received), len(keys)) == (2, 1)
    assert {one.path for one in webhook.received} == {
        f"/services/{SECRET}"
    }  # the worker follows no redirect


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (500, "answered 500"),
        (404, "answered 404"),
        ("hang", "no answer within 1.5 s"),
        ("drip", "no answer within 1.5 s"),
        ("drop", "not reached: "),
    ],
)
def test_webhook_that_keeps_failing_is_an_error_without_the_address(
    webhook: WebhookServer, trouble: int | str, expected: str
) -> None:
    webhook.always = trouble
    with pytest.raises(NotDelivered, match=expected) as caught:
        move("1.5" if trouble in HANGS else "5")
    # The server may read a request after its sender has given up.
    eventually(lambda: len(webhook.received) == 3, "the webhook has received three requests")
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = None if error.__suppress_context__ else error.__context__


def test_webhook_that_does_not_exist_is_an_error_without_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALERTS_WEBHOOK_URL", f"http://127.0.0.1:{free_port()}/{SECRET}")
    with pytest.raises(NotDelivered, match="not reached: ConnectError"):
        move()


def test_a_worker_waits_for_its_webhook_loses_no_alert_and_shows_no_secret(
    bench: Bench, webhook: WebhookServer
) -> None:
    """While the webhook fails, the stream stays at its position; all other streams continue."""
    other = "trade.BTC_USDC"
    bench.register(TRADES, other)
    entries = {
        entry_id(START_US + n, n): trade(n, START_US + n, f"{100 + 2 * n}") for n in (1, 2, 3)
    }
    bench.add(TRADES, entries | {entry_id(START_US + 9, 9, 1): gap(9, first=4)})
    bench.add(other, {entry_id(START_US, 1): trade(1, START_US)})
    webhook.always = 503
    given = {name: os.environ[name] for name in ("ALERTS_WEBHOOK_URL", "ALERTS_WEBHOOK_TOKEN")}
    worker = bench.start("alerts", BRIDGE_LOG__LEVEL="debug", **given)
    bench.await_group(other, "alerts", entry_id(START_US, 1))
    bench.until(lambda: "answered 503" in worker.err)
    assert len({one.headers["Idempotency-Key"] for one in webhook.received}) == 1
    webhook.always = 200
    bench.await_group(TRADES, "alerts", entry_id(START_US + 9, 9, 1))
    assert worker.stop() == 0
    taken = [one.body["text"] for one in webhook.received[-3:]]
    assert taken == [
        "SOL_USDC +1.96 % within 60 s: 102 → 104",
        "SOL_USDC +1.92 % within 60 s: 104 → 106",
        "trade.SOL_USDC: 4 to 9 are missing (skipped)",
    ]
    output = worker.err + worker.out + str(bench.redis.hgetall("consumers:status"))
    assert "alert_sent" in output
    for secret in (SECRET, TOKEN):
        assert secret not in output
